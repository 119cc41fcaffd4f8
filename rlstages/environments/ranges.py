"""Which numbers of an environment no learner can use, and which it should not get: checked for all copies at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlstages.environments.guarding import SINGLE

HUGE_REWARD = 1e10


class Finding(NamedTuple):
    """A number that is out of range.

    Attributes:
        copy: Of the environment.
        fatal: Whether training cannot go on with it.
        what: What is wrong, as a noun phrase: `"a number in goal that is not finite"`.
        seen: The number.
    """

    copy: int
    fatal: bool
    what: str
    seen: str


class Ranges:
    """Looks through rewards and observations; what is merely far out of bounds is found once for each field.

    Args:
        space: Of one observation.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        parts = space.spaces if isinstance(space, spaces.Dict) else {SINGLE: space}
        self._fields = {name: _limits(part) for name, part in parts.items()}
        self._huge_reward = False

    def rewards(self, rewards: np.ndarray) -> Finding | None:
        """Find a reward that is not finite, or the first that is huge; shape `(n,)`."""
        sizes = np.abs(rewards)
        if sizes.max() <= HUGE_REWARD or (self._huge_reward and np.isfinite(sizes).all()):
            return None
        fatal = ~np.isfinite(rewards)
        copy = int(np.flatnonzero(fatal if fatal.any() else sizes > HUGE_REWARD)[0])
        if fatal[copy]:
            return Finding(copy, True, f"the reward {rewards[copy]}", str(rewards[copy]))
        self._huge_reward = True
        return Finding(copy, False, f"a reward beyond {HUGE_REWARD:g}, which spoils the critic", f"{rewards[copy]:g}")

    def observations(self, observations: Any) -> Iterator[Finding]:
        """Find numbers that are not finite or impossible, and the first that are far out of the space's bounds.

        Args:
            observations: Of all copies, first axis the copies; a dictionary of such for `Dict` spaces.
        """
        for name, (low, high, exact) in self._fields.items():
            values = observations[name] if isinstance(observations, dict) else observations
            if low is not None and ((values >= low) & (values <= high)).all():
                continue
            if values.dtype.kind == "f":
                finite = np.isfinite(values).reshape(len(values), -1)
                if not finite.all():
                    copy, place = (int(index[0]) for index in np.nonzero(~finite))
                    seen = str(values.reshape(len(values), -1)[copy, place])
                    yield Finding(copy, True, f"a number in {name} that is not finite", seen)
                    continue
            if low is not None:
                outside = ((values < low) | (values > high)).reshape(len(values), -1)
                copy, place = (int(index[0]) for index in np.nonzero(outside))
                seen = str(values.reshape(len(values), -1)[copy, place])
                if exact:
                    yield Finding(copy, True, f"the number {seen} in {name}, which its space does not have", seen)
                else:
                    self._fields[name] = None, None, False
                    yield Finding(copy, False, f"numbers in {name} far out of its space's bounds", seen)


def _limits(space: gym.Space[Any]) -> tuple[Any, Any, bool]:
    """Return the lowest and highest number that is let pass, and whether others are impossible; or `None` for both.

    A Box's bounds are widened by half their distance: rounding and a fast fall are no faults, a wrong scale is one.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1), True
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1, True
    if isinstance(space, spaces.MultiBinary):
        return 0, 1, True
    if not isinstance(space, spaces.Box):
        return None, None, False
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if space.dtype is not None and space.dtype.kind in "iu":
        limits = np.iinfo(space.dtype)
        if (low <= limits.min).all() and (high >= limits.max).all():
            return None, None, False
    with np.errstate(over="ignore", invalid="ignore"):
        spare = (high - low) / 2
        low, high = low - spare, high + spare
        if not np.isfinite(low).any() and not np.isfinite(high).any():
            return None, None, False
        bounded = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf)
        if space.dtype is not None and space.dtype.kind == "f":
            low, high = low.astype(space.dtype), high.astype(space.dtype)
    return low, high, False
