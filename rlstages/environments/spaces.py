"""Observation and action spaces: as JSON data and back, and in words."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlstages.errors import InputError

MOST_NUMBERS = 2**24
SPACE_DTYPES = [str(np.dtype(code)) for code in "?bBhHiIqQefd"]


def space_to_data(space: gym.Space[Any]) -> dict[str, Any]:
    """Turn a space into JSON data.

    Raises:
        InputError: For spaces that stable-baselines3's on-policy algorithms do not take.
    """
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": _bounds(space.low),
            "high": _bounds(space.high),
        }
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), **_type(space)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist(), **_type(space)}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": list(space.shape) if np.ndim(space.n) else int(space.shape[0])}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {key: space_to_data(part) for key, part in space.spaces.items()}}
    sentence = f"{describe_space(space)} spaces are not supported; wrap the environment to give a Box or a Dict."
    raise InputError(sentence, "spaces-unsupported")


def space_from_data(data: Mapping[str, Any]) -> gym.Space[Any]:
    """Turn the data of `space_to_data` back into an equal space.

    Raises:
        InputError: If the data is anything else.
    """
    try:
        with np.errstate(over="raise", invalid="raise"):
            return _from_data(data)
    except (KeyError, TypeError, ValueError, AssertionError, AttributeError, ArithmeticError) as error:
        raise InputError(f"The data of a space is damaged: {type(error).__name__} {error}.", "file-damaged") from error


def _from_data(data: Mapping[str, Any]) -> gym.Space[Any]:
    kind = data["kind"]
    if kind == "Box":
        shape = tuple(data["shape"])
        _limit(*shape)
        dtype = _known_type(data["dtype"])
        low, high = (_array(data[name], shape, dtype) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        _limit(data["n"])
        return spaces.Discrete(data["n"], start=data["start"], **_given_type(data))
    if kind == "MultiDiscrete":
        _limit(int(np.array(data["nvec"], np.int64).sum()))
        return spaces.MultiDiscrete(data["nvec"], start=data["start"], **_given_type(data))
    if kind == "MultiBinary":
        _limit(*(data["n"] if isinstance(data["n"], list) else [data["n"]]))
        return spaces.MultiBinary(data["n"])
    if kind == "Dict":
        # An ordered one, because gymnasium sorts the keys of a plain dictionary.
        return spaces.Dict(OrderedDict((key, _from_data(part)) for key, part in data["spaces"].items()))
    raise ValueError(f"the kind {kind!r} is unknown")


def _type(space: gym.Space[Any]) -> dict[str, str]:
    """Return the type of a space of whole numbers, where it is not the usual one."""
    return {} if space.dtype == np.int64 else {"dtype": str(space.dtype)}


def _given_type(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"dtype": _known_type(data["dtype"]).type} if "dtype" in data else {}


def _known_type(name: Any) -> np.dtype[Any]:
    if name not in SPACE_DTYPES:
        raise ValueError(f"the type {name!r} is unknown")
    known: np.dtype[Any] = np.dtype(name)
    return known


def _limit(*sizes: int) -> None:
    """Refuse sizes that would make a space too large to hold, let alone to learn in."""
    if not all(type(size) is int and size >= 0 for size in sizes) or math.prod(sizes) > MOST_NUMBERS:
        raise ValueError(f"the sizes {list(sizes)!r:.80} are too large, or no sizes")


def describe_space(space: gym.Space[Any]) -> str:
    """Return a space in a few words, for messages."""
    if isinstance(space, spaces.Box):
        return f"Box{space.shape} of {space.dtype}"
    if isinstance(space, spaces.Dict):
        return "Dict(" + ", ".join(f"{key}: {describe_space(part)}" for key, part in space.spaces.items()) + ")"
    if isinstance(space, spaces.Discrete):
        return f"Discrete({int(space.n)})"
    if isinstance(space, spaces.Text):
        return f"Text({space.max_length})"
    return spell_space(space)


def spell_space(space: gym.Space[Any]) -> str:
    """Return a space in full, bounds included, on one line."""
    return " ".join(str(space).split())


def detached(value: Any) -> Any:
    """Return plain data whose arrays are nobody else's.

    Environments and experts may write into an array again after they have handed it out, and into one that they were
    given. Whatever is kept of theirs, and whatever they are given that is kept, goes through here.

    Args:
        value: Array, or dictionaries, lists and tuples with arrays in them. Anything else is returned as it is.
    """
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: detached(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(detached(part) for part in value)
    return value


def stack(observations: Sequence[Any], space: gym.Space[Any]) -> np.ndarray | dict[str, np.ndarray]:
    """Return single observations as one array, or as a dictionary of arrays, with a first axis for their number."""
    if isinstance(space, spaces.Dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in space.spaces}
    return np.stack([np.asarray(observation, dtype=space.dtype) for observation in observations])


def _bounds(values: np.ndarray) -> Any:
    if values.size and (values == values.flat[0]).all():
        return _number(values.flat[0])
    return [_number(value) for value in values.flat]


def _number(value: Any) -> Any:
    number = value.item()
    return number if np.isfinite(number) else str(number)


def _array(data: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    if not isinstance(data, list):
        return np.full(shape, float(data) if isinstance(data, str) else data, dtype)
    return np.array([float(value) if isinstance(value, str) else value for value in data], dtype).reshape(shape)
