"""Plain data: conversion of other libraries' values to Python's own, and immutable forms."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from enum import Enum
from typing import Any

_NO_LISTS = ("builtins", "array", "collections")
"""Modules whose other mutable sequences (bytearray, array, deque) do not count as lists."""


class FrozenList(tuple[Any, ...]):
    """An immutable, hashable list, which equals a tuple of the same items."""

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
    """Return an immutable form of plain data; `thaw` reverses it.

    Lists become `FrozenList`, mappings become `FrozenDict`, and tuples stay tuples. Containers of configuration
    libraries that behave like lists and dictionaries are treated like them.
    """
    if isinstance(value, Mapping) and not isinstance(value, FrozenDict):
        return FrozenDict(value)
    if isinstance(value, FrozenList) or is_list(value):
        return FrozenList(freeze(item) for item in value)
    if isinstance(value, tuple):
        return tuple(freeze(item) for item in value)
    return plain(value)


def thaw(value: Any) -> Any:
    """Return frozen data as new dictionaries and lists."""
    if isinstance(value, FrozenDict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, FrozenList):
        return [thaw(item) for item in value]
    return tuple(thaw(item) for item in value) if isinstance(value, tuple) else value


def is_list(value: Any) -> bool:
    """Return whether a value is a list or a list-like container of a configuration library."""
    listed = isinstance(value, MutableSequence) and type(value).__module__ not in _NO_LISTS
    return listed or isinstance(value, list)


def plain(value: Any) -> Any:
    """Convert a NumPy scalar, or an enum member that is text or a number, to Python's value; return others as is."""
    if isinstance(value, Enum) and isinstance(value, (str, int, float)):
        return value.value
    if not hasattr(value, "item") or getattr(value, "shape", None) != ():
        return value
    item = value.item()
    return item if isinstance(item, (str, bool, int, float)) else value


def whole(value: Any) -> Any:
    """Convert integers, NumPy integers and whole floats (1e5) to int; return anything else like `plain`."""
    value = plain(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def items_of(value: Any) -> Any:
    """Convert a list, tuple, range or one-dimensional array to a tuple of plain values; return others as is."""
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        value = value.tolist()
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    return tuple(map(plain, value)) if listed else value


def settle(spec: Any) -> None:
    """Convert the fields of a new frozen dataclass to Python's own values.

    NumPy's numbers become Python's, whole floats become ints in fields that take only ints, and lists of any kind
    become tuples. Other values are left for the checks to refuse.
    """
    for name, kinds in kinds_of(type(spec)).items():  # type: ignore[arg-type]
        given = getattr(spec, name)
        value = settled(given, kinds)
        if value is not given:
            object.__setattr__(spec, name, value)


def settled(value: Any, kinds: tuple[Any, ...]) -> Any:
    """Convert a value to Python's own for a field that takes these types; see `settle`."""
    if int in kinds and float not in kinds:
        return whole(value)
    if tuple[int, ...] not in kinds:
        return plain(value)
    items = items_of(value)
    return tuple(map(whole, items)) if isinstance(items, tuple) else items


@functools.cache
def kinds_of(cls: Any) -> dict[str, tuple[Any, ...]]:
    """Return the types of each field, with unions split into their members."""
    hints = typing.get_type_hints(cls)
    unions = (typing.Union, types.UnionType)
    return {
        field.name: typing.get_args(hint) if typing.get_origin(hint) in unions else (hint,)
        for field in dataclasses.fields(cls)
        for hint in [hints[field.name]]
    }
