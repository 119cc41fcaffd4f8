"""Settings: the default, the range and the text of each stand in one place, its field, and are read from there."""

from __future__ import annotations

import dataclasses
import math
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass
from typing import Any, TypeVar

from rlstages.errors import require, require_bool, require_choice, require_int, require_number
from rlstages.specs.plain import kinds_of
from rlstages.specs.schedules import Linear

_T = TypeVar("_T", bound=type)
_KEY = "rlstages setting"
_WIDTH = 112


@dataclass(frozen=True)
class About:
    """The description of a setting, besides name, type and default of its field.

    Attributes:
        text: One or more sentences for help and reference pages.
        least: Smallest allowed value.
        most: Largest allowed value.
        above: Exclusive lower limit.
        per_stage: Whether a stage may set another value than the agent; see `rlstages.specs.algorithms.base`.
    """

    text: str
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    per_stage: bool = False


def about(text: str, **limits: Any) -> Mapping[str, About]:
    """Return the metadata of a dataclass field that is a setting.

    Args:
        text: One or more sentences for help and reference pages.
        **limits: Other attributes of `About`.
    """
    return {_KEY: About(text, **limits)}


def setting(default: Any, text: str, **limits: Any) -> Any:
    """Return a dataclass field that is a setting with a default; see `about`."""
    return dataclasses.field(default=default, metadata=about(text, **limits))


def documented(cls: _T) -> _T:
    """Add the section `Args` to a dataclass's docstring, from the texts of its fields (class decorator)."""
    lines = ["", "Args:"]
    for field in _fields(cls):
        text = f"{field.name}: {' '.join(field.metadata[_KEY].text.split())}"
        lines += textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="        ")
    cls.__doc__ = "\n".join([textwrap.dedent(f"    {cls.__doc__}").rstrip(), *lines, ""])
    return cls


def check_settings(where: str, spec: Any) -> None:
    """Refuse a dataclass whose settings have the wrong type or are out of range.

    Args:
        where: Beginning of the error message, such as `"Agent"` or `"stage 'walk'"`.
        spec: Dataclass. Fields without `about` are not checked.

    Raises:
        InputError: If a value is invalid. The message names the setting, its value and what to give.
    """
    for field in _fields(type(spec)):
        check_setting(where, type(spec), field.name, getattr(spec, field.name))


def check_setting(where: str, cls: type, name: str, value: Any) -> None:
    """Refuse an invalid value of a setting.

    Args:
        where: Beginning of the error message; see `check_settings`.
        cls: Dataclass of the setting.
        name: Name of the field.
        value: Value of the field.

    Raises:
        InputError: If a value is invalid. The message names the setting, its value and what to give.
    """
    said, kinds = _about(cls, name), kinds_of(cls)[name]
    changing = f"{where}: {name} is a function; write Linear(start, end) for what changes over a stage."
    require(Linear not in kinds or not callable(value), changing, "setting-type", where, name, value)
    if (value is None and types.NoneType in kinds) or (Linear in kinds and isinstance(value, Linear)):
        return
    choices = [
        choice for kind in kinds if typing.get_origin(kind) is typing.Literal for choice in typing.get_args(kind)
    ]
    if choices:
        require_choice(where, name, value, choices)
    elif bool in kinds:
        require_bool(where, name, value)
    elif tuple[int, ...] in kinds:
        _require_ints(where, name, value, said)
    elif float in kinds:
        require_number(where, name, value, said.least, said.most, above=said.above)
    elif int in kinds:
        require_int(where, name, value, 1 if math.isinf(said.least) else int(said.least))


def _require_ints(where: str, name: str, value: Any, said: About) -> None:
    sentence = f"{where}: {name} is {value!r}; give a list of whole numbers."
    require(isinstance(value, tuple), sentence, "setting-type", where, name, value)
    for number in value:
        require_int(where, f"a number of {name}", number, 1 if math.isinf(said.least) else int(said.least))


def per_stage(cls: type) -> list[str]:
    """Return the names of the settings that a stage may change."""
    return [field.name for field in _fields(cls) if field.metadata[_KEY].per_stage]


def scheduled(cls: type) -> list[str]:
    """Return the names of the settings that may be schedules."""
    return [name for name, kinds in kinds_of(cls).items() if Linear in kinds]


def listing_of(cls: type) -> str:
    """Return a dataclass's settings as a Markdown list with name, default, range and text."""
    items = []
    for field in _fields(cls):
        told = [_default(field), _range(cls, field)]
        about_it = "; ".join(word for word in told if word)
        text = f"- `{field.name}` ({about_it}): {' '.join(field.metadata[_KEY].text.split())}"
        items += textwrap.wrap(text, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(items)


def schema_of(cls: type) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a dataclass's settings."""
    properties: dict[str, Any] = {}
    for field in _fields(cls):
        said, kinds = field.metadata[_KEY], kinds_of(cls)[field.name]
        limits = {"minimum": said.least, "maximum": said.most, "exclusiveMinimum": said.above}
        limits = {key: value for key, value in limits.items() if math.isfinite(value)}
        choices = _choices(kinds)
        named = [_JSON[kind] for kind in kinds if kind in _JSON]
        found: dict[str, Any] = {"description": " ".join(said.text.split())}
        if choices:
            found["enum"] = choices
        elif len(named) == len(kinds):
            found["type"] = named if len(named) > 1 else named[0]
        found |= {"items": {"type": "integer", **limits}} if "array" in named else limits
        if field.default is not MISSING and _is_plain(field.default):
            found["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        properties[field.name] = found
    needed = [field.name for field in _fields(cls) if field.default is MISSING]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": cls.__name__,
        "type": "object",
        "properties": properties,
        "required": needed,
        "additionalProperties": False,
    }


_JSON: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    tuple[int, ...]: "array",
    types.NoneType: "null",
}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, tuple))


def _default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "required"
    shown = repr(field.default) if _is_plain(field.default) else f"{type(field.default).__name__}()"
    return f"default `{'{}' if isinstance(field.default, Mapping) else shown}`"


def _range(cls: type, field: Field[Any]) -> str:
    said, words = field.metadata[_KEY], _choices(kinds_of(cls)[field.name])
    limits = {"at least": said.least, "above": said.above, "at most": said.most}
    told = [f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit)]
    return f"one of {', '.join(f'`{word!r}`' for word in words)}" if words else ", ".join(told)


def _choices(kinds: Iterable[Any]) -> list[Any]:
    return [word for kind in kinds if typing.get_origin(kind) is typing.Literal for word in typing.get_args(kind)]


def _about(cls: type, name: str) -> About:
    return next(field.metadata[_KEY] for field in _fields(cls) if field.name == name)  # type: ignore[no-any-return]


def _fields(cls: Any) -> Iterable[Field[Any]]:
    return [field for field in dataclasses.fields(cls) if _KEY in field.metadata]
