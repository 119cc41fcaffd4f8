"""Plain data: values of other libraries as Python's own, and frozen forms that keep what was written."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from enum import Enum
from typing import Any

_NO_LISTS = ("builtins", "array", "collections")
"""Modules whose other sequences that can be changed (bytearray, array, deque) are no lists to those who use them."""


class FrozenList(tuple[Any, ...]):
    """A list that cannot be changed: hashable, and equal to a tuple of the same items."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(list(self))


class FrozenDict(Mapping[Any, Any]):
    """A read-only, hashable mapping, compared by its items."""

    def __init__(self, items: Mapping[Any, Any] | None = None) -> None:
        self._items = {freeze(key): freeze(value) for key, value in (items or {}).items()}

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def freeze(value: Any) -> Any:
    """Return an immutable form of plain data, from which `thaw` makes it again.

    Lists become `FrozenList`, mappings `FrozenDict`, tuples stay tuples. Containers of configuration libraries that
    behave as lists and dictionaries count as these.
    """
    if isinstance(value, Mapping) and not isinstance(value, FrozenDict):
        return FrozenDict(value)
    if isinstance(value, FrozenList) or is_list(value):
        return FrozenList(freeze(item) for item in value)
    if isinstance(value, tuple):
        return tuple(freeze(item) for item in value)
    return plain(value)


def thaw(value: Any) -> Any:
    """Return what was frozen, in dictionaries and lists of the caller's own."""
    if isinstance(value, FrozenDict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, FrozenList):
        return [thaw(item) for item in value]
    return tuple(thaw(item) for item in value) if isinstance(value, tuple) else value


def is_list(value: Any) -> bool:
    """Say whether something is a list, or takes a list's place, as those of configuration libraries do."""
    listed = isinstance(value, MutableSequence) and type(value).__module__ not in _NO_LISTS
    return listed or isinstance(value, list)


def plain(value: Any) -> Any:
    """Return the Python value in a NumPy scalar, or in an enum's member that is text or a number; else the value."""
    if isinstance(value, Enum) and isinstance(value, (str, int, float)):
        return value.value
    if not hasattr(value, "item") or getattr(value, "shape", None) != ():
        return value
    item = value.item()
    return item if isinstance(item, (str, bool, int, float)) else value


def whole(value: Any) -> Any:
    """Return the int in a NumPy integer or in a float without a fraction (1e5); anything else as `plain` does."""
    value = plain(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def items_of(value: Any) -> Any:
    """Return a list, tuple, range or array of one axis as a tuple of plain values; anything else as it is."""
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        value = value.tolist()
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    return tuple(map(plain, value)) if listed else value


def settle(spec: Any) -> None:
    """Turn the fields of a frozen dataclass, as it is made, into Python's own values where they stand for these.

    NumPy's numbers become Python's, whole floats become ints in fields that take no other number, and lists of any
    kind become tuples. What does not fit is left for the checks to refuse.
    """
    for name, (takes_int, is_sequence) in _kinds(type(spec)).items():  # type: ignore[arg-type]
        given = getattr(spec, name)
        value = whole(given) if takes_int else items_of(given) if is_sequence else plain(given)
        if is_sequence and isinstance(value, tuple):
            value = tuple(map(whole, value))
        if value is not given:
            object.__setattr__(spec, name, value)


@functools.cache
def _kinds(cls: Any) -> dict[str, tuple[bool, bool]]:
    """Return of each field whether it takes ints and no other number, and whether it is a list of ints."""
    hints = typing.get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        members = typing.get_args(hint) if union else (hint,)
        found[field.name] = int in members and float not in members, tuple[int, ...] in members
    return found
