"""Running statistics that wrappers keep of what passes through them: found by playing, so fixed ones are no matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlstages.environments.guard import Guarded
from rlstages.errors import InputError
from rlstages.specs.environment import Environment

STEPS = 8
_INSIDE = ("env", "venv", "batched")
_SPREAD = ("var", "std", "m2")
_COUNT = ("count", "n", "num")


class MovedStatistics(NamedTuple):
    """Statistics that have moved.

    Attributes:
        layer: Wrapper, or the environment itself, that keeps them.
        name: Name of the attribute.
    """

    layer: Any
    name: str


class RunningStatistics:
    """The statistics of an environment and of its wrappers, as they are now.

    Args:
        env: Environment with all its wrappers, including those of a batch.
    """

    def __init__(self, env: Any) -> None:
        self._env, self._before = env, _statistics_in(env)

    def __bool__(self) -> bool:
        return bool(self._before)

    def moved(self) -> list[MovedStatistics]:
        """Return which have moved since, the outermost first."""
        now = _statistics_in(self._env)
        return [
            found
            for key, (found, numbers) in now.items()
            if key in self._before and not _equal(numbers, self._before[key][1])
        ]


def refuse_running_statistics(environment: Environment, env: gym.Env[Any, Any]) -> None:
    """Refuse wrappers that standardise observations or scale rewards by running statistics.

    Args:
        environment: What it is.
        env: One environment, which is played in for a few steps if there are statistics.

    Raises:
        InputError: Naming the wrapper, and what to use instead.
    """
    statistics = RunningStatistics(env)
    if not statistics:
        return
    # An environment that fails is refused elsewhere, with the reason.
    with suppress(Exception):
        _play(Guarded(env, 0, environment.step_timeout))
    for layer, name in statistics.moved():
        what = _kept_of(layer, name)
        if layer is env.unwrapped or what is None:
            continue
        kind = type(layer).__name__
        fixed = ", or set its update_running_mean to False" if hasattr(type(layer), "update_running_mean") else ""
        follows = {
            "observations": "so demonstrations, training and evaluation see different numbers",
            "rewards": "so returns, and thresholds of them, mean something else in each copy and at each time",
        }
        sentence = (
            f"{environment}: its wrapper {kind} keeps running statistics of {what} ({name}) in each copy and no run "
            f"saves them, {follows[what]}; leave {kind} out and give Agent(normalize_{what}=True){fixed}."
        )
        raise InputError(sentence, "environment-invalid", environment, "wrappers")


def reason_in_statistics(statistics: RunningStatistics) -> str:
    """Return, as a sentence to follow another, that statistics which have moved are a likely reason; or nothing."""
    for layer, name in statistics.moved():
        what = _kept_of(layer, name) or "observations"
        return (
            f" A likely reason: {type(layer).__name__} keeps running statistics ({name}), so each copy also shows "
            f"numbers of its own, and no run saves them; use Agent(normalize_{what}=True) instead, or fix them."
        )
    return ""


def _play(env: Guarded) -> None:
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(STEPS):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset(seed=0)


def _kept_of(layer: Any, name: str) -> str | None:
    """Return what statistics standardise, as their name or their wrapper's says; `None` if neither does."""
    kind = type(layer).__name__.lower()
    if not (name.endswith("rms") or "normali" in kind):
        return None
    return "rewards" if any(word in name + kind for word in ("rew", "ret")) else "observations"


def _statistics_in(env: Any) -> dict[tuple[int, str], tuple[MovedStatistics, list[np.ndarray]]]:
    found = {}
    for layer in _layers(env):
        for name, numbers in _statistics_of(layer):
            found[id(layer), name] = MovedStatistics(layer, name), numbers
    return found


def _layers(env: Any) -> Iterator[Any]:
    """Yield an environment's wrappers and itself, from outside in; of a batch of environments, the first."""
    waiting, seen = [env], set[int]()
    while waiting:
        layer = waiting.pop(0)
        if id(layer) in seen or not hasattr(layer, "__dict__"):
            continue
        seen.add(id(layer))
        yield layer
        kept = vars(layer)
        waiting += [kept[name] for name in _INSIDE if name in kept]
        copies = kept.get("envs")
        waiting += list(copies[:1]) if isinstance(copies, (list, tuple)) else []


def _statistics_of(layer: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield the names and numbers of means with variances that a layer keeps, in objects or as its own attributes."""
    kept = vars(layer)
    for name, value in kept.items():
        if name in _INSIDE or isinstance(value, gym.Env):
            continue
        parts = list(value.values()) if isinstance(value, Mapping) else [value]
        numbers = [number for part in parts for number in _moments_in(part)]
        if numbers:
            yield name, numbers
    own = {name.lower().strip("_"): name for name in kept}
    for mean in (name for name in own if "mean" in name):
        spread = next((own[mean.replace("mean", word)] for word in _SPREAD if mean.replace("mean", word) in own), None)
        numbers = _numbers([kept[own[mean]], kept[spread]]) if spread is not None else []
        if numbers:
            yield own[mean], numbers


def _moments_in(value: Any) -> list[np.ndarray]:
    """Return mean, variance and count of an object that keeps these; nothing of others, such as arrays and tables."""
    kinds = (["mean"], _SPREAD, _COUNT)
    try:
        return _numbers(
            [next((getattr(value, name) for name in names if hasattr(value, name)), None) for names in kinds]
        )
    except Exception:
        # Of an object that computes what it is asked for, and fails.
        return []


def _numbers(values: list[Any]) -> list[np.ndarray]:
    """Return values as arrays of numbers; nothing if one is none."""
    arrays = []
    for value in values:
        if value is None or callable(value):
            return []
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError):
            return []
        arrays.append(array)
    return arrays


def _equal(numbers: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other, equal_nan=True) for one, other in zip(numbers, others, strict=False))
