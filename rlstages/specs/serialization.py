"""Conversion of frozen dataclasses to plain JSON data and back."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from rlstages.errors import InputError, nearest, reason_of
from rlstages.specs.plain import FrozenDict, FrozenList, plain

TAG = "$type"
TUPLE, PAIRS = "tuple", "dict"
"""Markers in keyword arguments for what JSON lacks: tuples, and dictionaries with keys other than strings."""
ADDED: dict[tuple[Any, str], Any] = {("Environment", "success_at"): "end", ("Expert", "normalize"): None}
"""Later fields with their defaults. A digest leaves them out at these values, so old digests stay valid."""
MAX_DEPTH, MAX_DIGITS = 64, 400
GROUPS = ("rlstages.stages", "rlstages.algorithms", "rlstages.events")
"""Entry-point groups for classes of other packages."""
_CLASSES: dict[str, type] = {}
_T = TypeVar("_T", bound=type)


def serializable(cls: _T) -> _T:
    """Register a dataclass for `to_data` and `from_data` (class decorator)."""
    _CLASSES[cls.__name__] = cls
    return cls


def to_data(value: Any, *, nan_as_null: bool = False) -> Any:
    """Convert a spec or an event to plain JSON data.

    Args:
        value: Serialisable dataclass, or plain data.
        nan_as_null: Whether to convert non-finite numbers to null instead of refusing them.

    Raises:
        InputError: If a part is not plain data, such as a non-finite number, a set or an open file.
    """
    if dataclasses.is_dataclass(value) and type(value).__name__ in _CLASSES:
        fields = {f.name: to_data(getattr(value, f.name), nan_as_null=nan_as_null) for f in dataclasses.fields(value)}
        return {TAG: type(value).__name__, **fields}
    if isinstance(value, FrozenDict):
        return _frozen_to_data(value)
    if isinstance(value, Mapping):
        if TAG in value or not all(isinstance(key, str) for key in value):
            sentence = f"{value!r} cannot be written as JSON: its keys must be strings other than {TAG!r}."
            raise InputError(sentence, "setting-type", value=value)
        return {key: to_data(item, nan_as_null=nan_as_null) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_data(item, nan_as_null=nan_as_null) for item in value]
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float) and nan_as_null:
        return None
    own = plain(value)
    if own is not value:
        return to_data(own, nan_as_null=nan_as_null)
    raise InputError(f"{value!r} cannot be written as JSON; {_instead(value)}.", "setting-type", value=value)


def _frozen_to_data(value: Any) -> Any:
    """Convert frozen data to JSON data, with markers for tuples and for keys other than strings."""
    if isinstance(value, FrozenDict):
        if TAG not in value and all(isinstance(key, str) for key in value):
            return {key: _frozen_to_data(item) for key, item in value.items()}
        pairs = [[_frozen_to_data(key), _frozen_to_data(item)] for key, item in value.items()]
        return {TAG: PAIRS, "items": pairs}
    if isinstance(value, tuple):
        items = [_frozen_to_data(item) for item in value]
        return items if isinstance(value, FrozenList) else {TAG: TUPLE, "items": items}
    return to_data(value)


def _instead(value: Any) -> str:
    """Return advice on what to write instead of a value that is not plain data."""
    if hasattr(value, "tolist"):
        return "write a list: its .tolist()"
    if isinstance(value, os.PathLike):
        return f"write the path as text: {os.fspath(value)!r}"
    if isinstance(value, (range, set, frozenset)) or type(value).__name__ in ("deque", "array"):
        return "write a list"
    return "use finite numbers, strings, lists and dictionaries, and name classes and functions as 'module:name'"


def from_data(data: Any) -> Any:
    """Convert the result of `to_data` back to an equal object.

    Raises:
        InputError: If the data names an unknown type, has unknown fields, or is nested too deeply.
    """
    try:
        return _from_data(data, FrozenList)
    except RecursionError:
        raise InputError("The data is nested too deep.", "file-damaged") from None


def _from_data(data: Any, listed: type) -> Any:
    """Convert data to an object. Lists become tuples in fields of specs."""
    if isinstance(data, list):
        return listed(_from_data(item, listed) for item in data)
    if not isinstance(data, dict):
        return data
    if TAG not in data:
        return FrozenDict({key: _from_data(value, FrozenList) for key, value in data.items()})
    name = data[TAG]
    if name in (TUPLE, PAIRS):
        return _items_from_data(name, data.get("items"))
    cls = _class_named(name)
    fields = {key: _from_data(value, tuple) for key, value in data.items() if key != TAG}
    try:
        return cls(**fields)
    except TypeError as error:
        raise InputError(f"The data of a {name} does not fit: {error}.", "file-damaged", name=str(name)) from error


def _class_named(name: Any) -> type:
    """Return a serializable class, whose module is imported if an installed package says which it is."""
    if isinstance(name, str) and name not in _CLASSES:
        _entries(name)
    if not isinstance(name, str) or name not in _CLASSES:
        missing = f" No installed package adds it under the entry points {' or '.join(GROUPS)}."
        sentence = f"The data names the unknown type {name!r}.{nearest(str(name), _CLASSES) or missing}"
        raise InputError(sentence, "name-unknown", name="type", value=name)
    return _CLASSES[name]


def refuse_unfindable(spec: Any, group: str) -> None:
    """Refuse a spec of which a class would not be found by whoever reads its data, as they know only its name.

    Args:
        spec: What is written down.
        group: Entry-point group of such classes.

    Raises:
        InputError: Saying where to name it.
    """
    for name in dict.fromkeys(_kinds_in(to_data(spec))):
        cls = _CLASSES[name]
        if cls.__module__.partition(".")[0] != "rlstages" and cls not in _entries(name):
            sentence = (
                f"{name} of the module {cls.__module__} could not be found by the commands that read the run later; "
                f'put it into a package whose pyproject.toml has {name} = "module:{cls.__qualname__}" under '
                f'[project.entry-points."{group}"], and install that.'
            )
            raise InputError(sentence, "kind-invalid", cls.__module__, name)


def _entries(name: str) -> list[Any]:
    """Return what installed packages add under a name, which registers itself as it is imported."""
    found = []
    for entry in (entry for group in GROUPS for entry in entry_points(group=group, name=name)):
        try:
            found.append(entry.load())
        except Exception as error:
            sentence = f"{name!r} cannot be imported from {entry.value}: {reason_of(error)}."
            raise InputError(sentence, "import-failed", entry.value, name) from error
    return found


def _kinds_in(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        if data.get(TAG, TUPLE) not in (TUPLE, PAIRS):
            yield data[TAG]
        data = list(data.values())
    for item in data if isinstance(data, list) else ():
        yield from _kinds_in(item)


def _items_from_data(kind: str, items: Any) -> Any:
    """Turn the data of a tuple or of a dictionary with other keys than texts back into it."""
    found = _from_data(items, FrozenList)
    try:
        if isinstance(found, FrozenList):
            return tuple(found) if kind == TUPLE else FrozenDict(dict(found))
    except (TypeError, ValueError):
        pass
    raise InputError(f"The data of a {kind} does not fit: its items are {items!r:.80}.", "file-damaged", name=kind)


def dumps(data: Any) -> str:
    """Return strict JSON in one line: no NaN, no infinities."""
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(", ", ": "))


def loads(text: str | bytes) -> Any:
    """Read strict JSON that anyone may have written.

    Args:
        text: UTF-8, without a byte order mark.

    Raises:
        InputError: If the text is anything else, such as one with a number that is not finite, with a key given twice,
            or nested deeper than 64.
    """
    try:
        content = text.decode() if isinstance(text, bytes) else text
        if _depth_exceeds(content, MAX_DEPTH):
            raise ValueError(f"its brackets are nested deeper than {MAX_DEPTH}, or do not match")
        return json.loads(
            content,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}", "file-damaged") from error


def _depth_exceeds(text: str, most: int) -> bool:
    """Say whether brackets are nested deeper than `most`, or do not match."""
    if text.count("[") + text.count("{") <= most:
        return False
    # The closing quote is optional, so that the pattern never goes back over what it has read.
    brackets = re.sub(r'"(?:[^"\\]+|\\.)*"?|[^][{}"]+', "", text, flags=re.DOTALL)
    for _ in range(most):
        if not brackets:
            return False
        brackets = brackets.replace("[]", "").replace("{}", "")
    return bool(brackets)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _short(digits: str) -> int:
    # Reading a number takes time that grows with the square of its length.
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is given twice")
    return found


def digest(value: Any) -> str:
    """Return the SHA-256 of a spec's canonical JSON, as 64 hexadecimal digits; a tuple in it counts as a list."""
    canonical = _json(_canonical(to_data(value)))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(data: Any) -> Any:
    if isinstance(data, list):
        return [_canonical(item) for item in data]
    if not isinstance(data, dict):
        return data
    if data.get(TAG) == TUPLE:
        return _canonical(data["items"])
    kind = data.get(TAG)
    plainly = {k: _canonical(v) for k, v in data.items() if (kind, k) not in ADDED or v != ADDED[kind, k]}
    return {**plainly, "items": sorted(plainly["items"], key=_json)} if data.get(TAG) == PAIRS else plainly


def _json(data: Any) -> str:
    return json.dumps(data, allow_nan=False, sort_keys=True, separators=(",", ":"))


def require_types(record: Any) -> None:
    """Refuse a dataclass whose fields are not of the types that it says; a number may be null, where it was NaN.

    Raises:
        InputError: Naming the field.
    """
    hints = _hints(type(record))  # type: ignore[arg-type]
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if not _is_of(value, hints[field.name]):
            sentence = f"The {field.name} of a {type(record).__name__} is {value!r:.80}."
            raise InputError(sentence, "file-damaged", type(record).__name__, field.name)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_of(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_of(item, arguments[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_is_of(item, arguments[1]) for item in value.values())
    if hint is float:
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Any:
        return True
    if not isinstance(value, origin or hint):
        return False
    if dataclasses.is_dataclass(value):
        require_types(value)
    return True


def unusual(spec: Any, *told: str, given: str | None = None) -> str:
    """Return a dataclass's settings that are not its defaults, as they are written, with a semicolon before them.

    Args:
        spec: The instance.
        told: Names of fields that are told otherwise; those without a default are left out too.
        given: Name of a field that holds further settings by their names; these come first.
    """
    own = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.default is not dataclasses.MISSING
        and field.name not in (*told, given)
        and getattr(spec, field.name) != field.default
    }
    values = {**(getattr(spec, given) if given else {}), **own}
    shown = (f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}" for name, value in values.items())
    return f"; {', '.join(shown)}" if values else ""
