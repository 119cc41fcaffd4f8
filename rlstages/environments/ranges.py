"""Checks of numbers from environments: those that no learner can use, and doubtful ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlstages.environments.guard import SINGLE

HUGE_REWARD = 1e10


class Finding(NamedTuple):
    """A number that is out of range.

    Attributes:
        copy: Index of the environment.
        fatal: Whether training cannot go on with it.
        what: What is wrong, as a noun phrase: `"a number in goal that is not finite"`.
        seen: Number.
        name: Name of the array that has it: `"reward"`, `"observation"`, or a key of a dictionary.
    """

    copy: int
    fatal: bool
    what: str
    seen: str
    name: str = "reward"


class Limits(NamedTuple):
    """The lowest and the highest number that is let pass, in each place of an observation or in all.

    Attributes:
        low: Lowest; `None` where all numbers pass that the type can hold.
        high: Highest.
        exact: Whether others are impossible.
    """

    low: Any
    high: Any
    exact: bool = False

    def hold(self, values: np.ndarray) -> bool:
        """Say whether all numbers lie between them, as none does that is not finite."""
        if self.low is None:
            return True
        # The cheapest way to ask.
        within = np.count_nonzero(values >= self.low) + np.count_nonzero(values <= self.high)
        return bool(within == 2 * values.size)


class Ranges:
    """Looks through rewards and observations; what is merely far out of bounds is found once for each field.

    Nearly always all is well, so that is asked first: `rewards_hold` and `observations_hold`.

    Args:
        space: Space of one observation.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._is_dict = isinstance(space, spaces.Dict)
        self._spaces = space.spaces if isinstance(space, spaces.Dict) else {SINGLE: space}
        self._limits = {name: _limits(part) for name, part in self._spaces.items()}
        self._most_reward = HUGE_REWARD

    def rewards_hold(self, rewards: np.ndarray) -> bool:
        """Say whether all rewards are in range; shape `(n,)`."""
        return bool(np.count_nonzero(np.abs(rewards) <= self._most_reward) == rewards.size)

    def reward_outside(self, rewards: np.ndarray) -> Finding:
        """Find a reward that is not finite, or the first that is huge, where they do not hold."""
        finite = np.isfinite(rewards)
        copy = int(np.flatnonzero(np.abs(rewards) > self._most_reward if finite.all() else ~finite)[0])
        if not finite[copy]:
            return Finding(copy, True, f"the reward {rewards[copy]}", str(rewards[copy]))
        self._most_reward = float(np.finfo(rewards.dtype).max)
        return Finding(copy, False, f"a reward beyond {HUGE_REWARD:g}, which spoils the critic", f"{rewards[copy]:g}")

    def observations_hold(self, observations: Any) -> bool:
        """Say whether all numbers are in range.

        Args:
            observations: Observations; the first axis is the environments; a dictionary of them for `Dict` spaces.
        """
        if self._is_dict:
            return all(limits.hold(observations[name]) for name, limits in self._limits.items())
        return self._limits[SINGLE].hold(observations)

    def observations_outside(self, observations: Any) -> Iterator[Finding]:
        """Find numbers that are not finite or impossible, and the first that are far out of the space's bounds."""
        for name, limits in self._limits.items():
            values = observations[name] if self._is_dict else observations
            if limits.hold(values):
                continue
            finite = np.isfinite(values)
            wrong = (values < limits.low) | (values > limits.high) if finite.all() else ~finite
            copy, place = (int(index[0]) for index in np.nonzero(wrong.reshape(len(values), -1)))
            seen = values.reshape(len(values), -1)[copy, place]
            if not np.isfinite(seen):
                yield Finding(
                    copy, True, f"a number in {name} that is not finite", str(seen), name.removeprefix("the ")
                )
            elif limits.exact:
                yield Finding(
                    copy,
                    True,
                    f"the number {seen} in {name}, which its space does not have",
                    str(seen),
                    name.removeprefix("the "),
                )
            else:
                self._limits[name] = _everything(values.dtype)
                yield Finding(copy, False, f"numbers in {name} far out of its space's bounds", str(seen))


def _limits(space: gym.Space[Any]) -> Limits:
    """Return the limits of a space.

    A Box's bounds are widened by half their distance: rounding and a fast fall are no faults, a wrong scale is one.
    """
    if isinstance(space, spaces.Discrete):
        return Limits(int(space.start), int(space.start + space.n - 1), exact=True)
    if isinstance(space, spaces.MultiDiscrete):
        return Limits(space.start, space.start + space.nvec - 1, exact=True)
    if isinstance(space, spaces.MultiBinary):
        return Limits(0, 1, exact=True)
    if not isinstance(space, spaces.Box) or space.dtype is None:
        return Limits(None, None)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if space.dtype.kind in "iu":
        integers = np.iinfo(space.dtype)
        if (low <= integers.min).all() and (high >= integers.max).all():
            return Limits(None, None)
    with np.errstate(over="ignore", invalid="ignore"):
        spare = (high - low) / 2
        low, high = low - spare, high + spare
    bounded = np.isfinite(low) & np.isfinite(high)
    if space.dtype.kind != "f":
        return Limits(np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf))
    everything = _everything(space.dtype)
    if not bounded.any():
        return everything
    low, high = (np.clip(bound, everything.low, everything.high) for bound in (low, high))
    return Limits(
        np.where(bounded, low, everything.low).astype(space.dtype),
        np.where(bounded, high, everything.high).astype(space.dtype),
    )


def _everything(dtype: np.dtype[Any]) -> Limits:
    """Return limits that let pass whatever is finite."""
    if dtype.kind != "f":
        return Limits(None, None)
    most = np.array(np.finfo(dtype).max, dtype)
    return Limits(-most, most)
