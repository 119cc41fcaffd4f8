"""A safe reader for the observation statistics of a pickled `VecNormalize`.

A pickle names functions, and Python calls them when it loads the file. This reader replaces each name by an inert
object, and accepts only names that occur in such files. Nothing is imported or called, and arrays are made only from
the bytes in the file.
"""

from __future__ import annotations

import pickle  # noqa: TID251 - no name in the file is looked up
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlstages.environments.spaces import describe_space
from rlstages.errors import InputError, require, require_sound, text_of
from rlstages.storage.untrusted import read_bytes

MAX_FILE, MAX_OPERATIONS = 2**26, 10**6
_KNOWN = re.compile(r"(gym|gymnasium|shimmy|stable_baselines3|numpy)(\.\w+)*|collections|copyreg|_codecs|builtins")
_BUILTINS = {"set", "frozenset", "slice", "complex", "bytearray", "object", "getattr", "type", "range", "dict", "list"}


@dataclass(frozen=True)
class ObservationStatistics:
    """The observation statistics of a `VecNormalize`.

    Attributes:
        moments: Mean and variance by key of a `Dict` observation, or under the key `None`.
        epsilon: Number that is added to the variance.
        clip: Limit of the standardised numbers, in standard deviations.
    """

    moments: Mapping[str | None, tuple[np.ndarray, np.ndarray]]
    epsilon: float
    clip: float

    def apply(self, observation: Any) -> Any:
        """Return a normalised observation, as the model saw it in training."""
        if not self.moments:
            return observation
        if None in self.moments:
            return self._standardize(None, observation)
        return {k: self._standardize(k, part) if k in self.moments else part for k, part in observation.items()}

    def require_fit(self, path: str, space: gym.Space[Any]) -> None:
        """Refuse statistics that do not fit an observation space.

        Raises:
            InputError: If keys or shapes differ.
        """
        parts: Mapping[Any, gym.Space[Any]] = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        for key, (mean, _) in self.moments.items():
            part = parts.get(key)
            fits = part is not None and part.shape == mean.shape
            which = "" if key is None else f" of {key!r}"
            sentence = (
                f"{path} holds statistics{which} in the shape {mean.shape}, and the observations are "
                f"{describe_space(space)}; give the file that belongs to the model."
            )
            require(fits, sentence, "expert-invalid", path, "normalize")

    def _standardize(self, key: str | None, values: Any) -> np.ndarray:
        mean, variance = self.moments[key]
        scaled = (np.asarray(values) - mean) / np.sqrt(variance + self.epsilon)
        clipped: np.ndarray = np.clip(scaled, -self.clip, self.clip).astype(np.float32)
        return clipped


def read_statistics(path: Path) -> ObservationStatistics:
    """Read a file that `VecNormalize.save` wrote.

    Raises:
        InputError: If the file is missing, has another format, or names anything unexpected.
    """
    require(path.is_file(), f"There are no statistics at {path}.", "file-missing", path)
    try:
        content = read_bytes(path, MAX_FILE)
        _require_small(content)
        state = _Reader(BytesIO(content)).load()
        held: Any = state.held if isinstance(state, _Inert) else None
        require_sound(isinstance(held, dict) and "clip_obs" in held, "it does not hold a VecNormalize.")
        return _statistics(held)
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}", "file-damaged", path) from error
    except Exception as error:
        # A damaged pickle can make its reader raise anything.
        raise InputError(
            f"{path} is no file that VecNormalize.save wrote: {text_of(error)}.", "file-damaged", path
        ) from error


def _require_small(content: bytes) -> None:
    """Refuse a pickle that would need far more memory than its size, through many objects or a large memo index."""
    for number, (operation, given, _) in enumerate(pickletools.genops(content)):
        require_sound(number < MAX_OPERATIONS, f"it has more than {MAX_OPERATIONS:,} objects.")
        require_sound("PUT" not in operation.name or cast(int, given) <= MAX_OPERATIONS, "it is damaged.")


def _statistics(held: dict[str, Any]) -> ObservationStatistics:
    if not held.get("norm_obs", True):
        return ObservationStatistics({}, 1e-8, 10.0)
    running = held["obs_rms"]
    each = running if isinstance(running, dict) else {None: running}
    wanted = held.get("norm_obs_keys")
    if isinstance(running, dict) and wanted is not None:
        each = {key: each[key] for key in wanted}
    moments = {key: (_numbers(one.held["mean"]), _numbers(one.held["var"])) for key, one in each.items()}
    for mean, variance in moments.values():
        sound = mean.shape == variance.shape and np.isfinite(mean).all() and np.isfinite(variance).all()
        require_sound(bool(sound) and bool((variance >= 0).all()), "its statistics are damaged.")
    epsilon, clip = (float(_number(held[name])) for name in ("epsilon", "clip_obs"))
    require_sound(0 <= epsilon < 1 and clip > 0, "its epsilon or clip_obs is damaged.")
    return ObservationStatistics(moments, epsilon, clip)


def _numbers(value: Any) -> np.ndarray:
    return np.array(value.array() if isinstance(value, _Inert) else value, np.float64)


def _number(value: Any) -> Any:
    return value.array() if isinstance(value, _Inert) else value


class _Inert:
    """A stand-in for any name in a pickle, which stores its arguments and its state."""

    def __init__(self, name: str, given: tuple[Any, ...] = ()) -> None:
        self.name, self.given = name, given
        self.held: Any = {}

    def __call__(self, *given: Any, **named: Any) -> _Inert:
        return _Inert(self.name, given)

    def __setstate__(self, state: Any) -> None:
        self.held = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Store an item of a mapping that the pickle fills."""

    def append(self, value: Any) -> None:
        """Store an item of a list that the pickle fills."""

    def array(self) -> np.ndarray:
        """Return the array that NumPy's pickle describes by a type, a shape and bytes."""
        if self.name.endswith(("multiarray.scalar", "scalar")):
            dtype, content = self.given
            return np.frombuffer(_bytes(content), _dtype(dtype)).reshape(())
        if self.name.endswith("_frombuffer"):
            content, dtype, shape, order = self.given
        else:
            _, shape, dtype, fortran, content = self.held
            order = "F" if fortran else "C"
        array: np.ndarray = np.frombuffer(_bytes(content), _dtype(dtype)).reshape(shape, order=order)
        return array


def _bytes(content: Any) -> bytes:
    if isinstance(content, _Inert):
        # Protocol 2 stores bytes as text: _codecs.encode(text, "latin1").
        content = str(content.given[0]).encode("latin1")
    require_sound(isinstance(content, (bytes, bytearray)), "its arrays are damaged.")
    return bytes(content)


def _dtype(described: Any) -> np.dtype[Any]:
    code = str(described.given[0])
    require_sound(re.fullmatch(r"[fiu][248]|b1", code) is not None, f"its numbers are of the type {code!r}.")
    order = described.held[1] if described.held else "="
    return np.dtype((order if order in ("<", ">") else "=") + code)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.fullmatch(module) and (module != "builtins" or name in _BUILTINS)
        require_sound(bool(known), f"it names {module}.{name}, which no file of VecNormalize's does.")
        return _stand_in(f"{module}.{name}")


def _stand_in(name: str) -> Any:
    """Return a new stand-in class. Pickles call it, or make objects of it without calling it."""

    def new(cls: Any, *given: Any, **named: Any) -> _Inert:
        if name.startswith("copyreg.") and given and isinstance(given[0], type):
            return _Inert(given[0].__name__)
        return _Inert(name, given)

    return type(name, (), {"__new__": new})
