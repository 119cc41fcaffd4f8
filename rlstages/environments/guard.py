"""Faults of an environment, as one kind of error."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlstages.environments.spaces import describe_space, detached
from rlstages.environments.watchdog import Overdue, TimeLimit
from rlstages.errors import in_short, reason_of

SINGLE = "the observation"


class CopyError(Exception):
    """One environment cannot go on.

    Args:
        copy: Index of the environment, or `None` if unknown.
        what: What it did, as the rest of a sentence that begins with the environment.
        trace: Environment's own traceback, or nothing.
    """

    def __init__(self, copy: int | None, what: str, trace: str = "") -> None:
        super().__init__(copy, what, trace)
        self.copy, self.what, self.trace = copy, what, trace

    def __str__(self) -> str:
        return self.what


class Note(NamedTuple):
    """Something doubtful that an environment gave.

    Attributes:
        copy: Index of the environment.
        begun: Whether it came with the first observation of an episode.
        what: It did, as the rest of a sentence that begins with the environment.
        seen: What was seen.
    """

    copy: int
    begun: bool
    what: str
    seen: str


class Guarded(gym.Wrapper[Any, Any, Any, Any]):
    """Turns every failure of an environment into a `CopyError`, and gives its observations the type they should have.

    stable-baselines3 would stretch an observation of shape `(1,)` over a buffer of shape `(3,)` and store 300 as 44 in
    a buffer of bytes, and never say so. Here a wrong shape or a number that does not fit is an error, and a mere
    conversion is noted once.

    Args:
        env: Environment.
        copy: Its index.
        timeout: Seconds that a reset or a step may take, where `watchdog.watching` is in force.

    Attributes:
        copy: Its index.
        name: What a time limit calls a call of this copy.
        notes: What was doubtful since they were last taken.
    """

    def __init__(self, env: gym.Env[Any, Any], copy: int, timeout: float) -> None:
        super().__init__(env)
        self.name = f"A step or reset of copy {copy} of {env}"
        self.notes: list[Note] = []
        self.copy = copy
        self._limit = TimeLimit(timeout, self.name)
        self._space = env.observation_space
        # Of an array that needs no second look: types of arrays are mostly the same object.
        self._dtype, self._shape = self._space.dtype, self._space.shape
        self._noted: set[str] = set()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment.

        Raises:
            CopyError: If it fails, or returns something else than an observation and an info.
        """
        try:
            with self._limit:
                given = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            raise self._failure(error, "reset") from error
        if not isinstance(given, tuple) or len(given) != 2:
            raise CopyError(self.copy, f"returned {_brief(given)} from reset(), not an observation and an info")
        observation, info = given
        if not isinstance(info, dict):
            raise self._no_dictionary(info)
        return detached(self._fit(observation, begun=True)), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment.

        Raises:
            CopyError: If it fails, or returns something else than gymnasium's five values.
        """
        try:
            with self._limit:
                given = self.env.step(action)
        except (Exception, SystemExit) as error:
            raise self._failure(error, "step") from error
        if not isinstance(given, tuple) or len(given) != 5:
            raise CopyError(
                self.copy,
                f"returned {_brief(given)} from step(), "
                "not an observation, a reward, terminated, truncated and an info",
            )
        observation, reward, terminated, truncated, info = given
        if not isinstance(info, dict):
            raise self._no_dictionary(info)
        if type(observation) is np.ndarray and observation.dtype is self._dtype and observation.shape == self._shape:
            observation = observation.copy()
        else:
            observation = detached(self._fit(observation))
        if type(reward) is not float:
            reward = self._number(reward)
        return observation, reward, bool(terminated), bool(truncated), info

    def _failure(self, error: BaseException, call: str) -> CopyError:
        """Convert an exception of the environment to a `CopyError`.

        Args:
            error: Raised by the call, in a frame of ours.
            call: `"reset"` or `"step"`.
        """
        if isinstance(error, Overdue):
            return CopyError(self.copy, late(self._limit.seconds, f"{call}()"), traceback_of(error))
        what = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {reason_of(error)}"
        return CopyError(self.copy, f"{what} in {call}()", traceback_of(error))

    def _no_dictionary(self, info: Any) -> CopyError:
        return CopyError(self.copy, f"gave the info {_brief(info)}, which is no dictionary")

    def _number(self, reward: Any) -> float:
        try:
            return float(reward.item() if isinstance(reward, np.ndarray) else reward)
        except (TypeError, ValueError):
            raise CopyError(self.copy, f"gave the reward {_brief(reward)}, which is no number") from None

    def take_notes(self) -> list[Note]:
        """Return the notes and clear them."""
        taken, self.notes = self.notes, []
        return taken

    def _fit(self, observation: Any, begun: bool = False) -> Any:
        space = self._space
        if not isinstance(space, spaces.Dict):
            return self._fit_part(SINGLE, observation, space, begun)
        if not isinstance(observation, Mapping):
            said = f"gave the observation {_brief(observation)}, where its space is {describe_space(space)}"
            raise CopyError(self.copy, said)
        missing = [key for key in space.spaces if key not in observation]
        if missing:
            raise CopyError(self.copy, f"gave an observation without {missing[0]!r}")
        return {key: self._fit_part(key, observation[key], part, begun) for key, part in space.spaces.items()}

    def _fit_part(self, field: str, value: Any, space: gym.Space[Any], begun: bool) -> Any:
        if type(value) is np.ndarray and value.dtype == space.dtype and value.shape == space.shape:
            return value
        if isinstance(space, spaces.Discrete) and isinstance(value, (int, np.integer)):
            return value
        wanted: Any = space.dtype
        array = np.asarray(value) if _is_plain(value) else np.empty(0, object)
        if array.dtype.kind not in "biuf":
            raise CopyError(self.copy, f"gave {_brief(value)} as {field}, where its space is {describe_space(space)}")
        if array.shape != space.shape:
            raise CopyError(
                self.copy, f"gave {field} in the shape {array.shape}, where its space is {describe_space(space)}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            fitted = array.astype(wanted)
        if fitted.dtype.kind != "f" and not np.array_equal(fitted, array):
            raise CopyError(
                self.copy, f"gave {field} as {array.dtype} with numbers that {wanted}, its space's type, cannot hold"
            )
        if field not in self._noted and array.dtype != fitted.dtype:
            self._noted.add(field)
            converted = f"gives {field} in another type than its space's {wanted}; it is converted"
            self.notes.append(Note(self.copy, begun, converted, str(array.dtype)))
        return fitted


def guard_of(env: gym.Env[Any, Any]) -> Guarded:
    """Return the guard directly inside a wrapper."""
    assert isinstance(env, gym.Wrapper) and isinstance(env.env, Guarded), env
    return env.env


def late(seconds: float, call: str) -> str:
    """Return half a sentence: the call took longer than its time limit."""
    return (
        f"has not come back from {call} within {seconds:g} seconds and was stopped; "
        "if it may take that long, raise Environment(step_timeout=...)"
    )


def traceback_of(error: BaseException, skip: int = 1) -> str:
    """Return an exception's traceback as Python prints it, without the outermost frames, which are ours.

    Nothing is left of an error that came at the call itself, such as an argument that is not known.
    """
    start = error.__traceback__
    for _ in range(skip):
        start = None if start is None else start.tb_next
    return "" if start is None else "".join(traceback.format_exception(type(error), error, start))


def _is_plain(value: Any) -> bool:
    """Return whether NumPy makes a regular array of a value. It raises for lists of uneven length."""
    try:
        np.asarray(value)
    except (TypeError, ValueError):
        return False
    return True


def _brief(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    if isinstance(value, np.ndarray) and value.size > 1:
        return f"an array of {value.dtype} in the shape {value.shape}"
    return in_short(value)
