"""Action units: a policy acts in [-1, 1] in every dimension of a Box, an environment within its own bounds.

Exploration noise, its floor, the cloning loss and the initial outputs of the network are all of order 1. In the units
of a robot, such as 0 to 2000 newtons or 1 mm, a policy could either not reach most actions, or not distinguish them
from its noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlstages.environments.spaces import describe_space, spell_space
from rlstages.errors import require

MOST_WIDTH = 1e12
"""Distance of the bounds above which one of them counts as a placeholder."""
FEWEST_STEPS = 256
"""Minimum number of values between the bounds that float32, or the space's coarser type, must distinguish."""
NARROW = 1e-3
"""Share of a dimension's range. Demonstrations that use less are hidden by the exploration noise."""
RESOLVED_WIDTH = 2.0**24
"""Distance of the bounds above which float32 cannot distinguish the integers between them."""
ONLY_BOUNDS = (
    "only the bounds differ, but a policy acts in shares of them, so one output would mean two actions; give both "
    "common bounds (gymnasium.wrappers.RescaleAction)"
)


def unit_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the action space of a policy: [-1, 1] as float32 for a Box with other bounds, else the space itself."""
    if not isinstance(space, spaces.Box) or bool((space.low == -1).all() and (space.high == 1).all()):
        return space
    return spaces.Box(-1.0, 1.0, space.shape, np.float32)


def from_units(actions: np.ndarray, space: spaces.Box) -> np.ndarray:
    """Convert a policy's actions to an environment's own units.

    Args:
        actions: Shape `(n, *space.shape)`; -1 stands for the lower bound, 1 for the upper one, exactly.
        space: Environment's own Box.

    Returns:
        The same shape, in the space's type and within its bounds.
    """
    low, high = _bounds(space)
    share = (actions.astype(np.float64) + 1) / 2
    acted: np.ndarray = np.clip(low * (1 - share) + high * share, low, high)
    return acted.astype(space.dtype)


def to_units(actions: np.ndarray, space: gym.Space[Any]) -> np.ndarray:
    """Convert actions in an environment's own units to those of its policy; see `from_units`.

    Dimensions whose bounds are equal become 0. Actions that need no conversion are returned as they are.
    """
    if not isinstance(space, spaces.Box) or unit_space(space) is space:
        return actions
    low, high = _bounds(space)
    width = high - low
    share = np.divide(actions - low, width, out=np.full(actions.shape, 0.5), where=width > 0)
    units: np.ndarray = np.clip(2 * share - 1, -1, 1)
    return units.astype(np.float32)


def scale_of(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return half the width and the centre of each dimension of a Box, flat, in float64."""
    low, high = _bounds(space)
    return ((high - low) / 2).reshape(-1), (low / 2 + high / 2).reshape(-1)


def rounding(space: spaces.Box) -> np.ndarray:
    """Return how far rounding alone may move an action out of its bounds, in each dimension: 1e-6 for [-1, 1]."""
    low, high = _bounds(space)
    spare: np.ndarray = np.maximum(1e-6 * (high - low) / 2, np.finfo(np.float32).eps * np.maximum(abs(low), abs(high)))
    return spare


def outside(values: np.ndarray, space: spaces.Box) -> tuple[int, str] | None:
    """Find the first number that exceeds the bounds of a Box by more than rounding.

    Args:
        values: Shape `(n, *space.shape)`.
        space: Box with the bounds.

    Returns:
        Its row, and a clause on it: its place in the row, the number, the bounds there; `None` if there is none.
    """
    (low, high), spare = _bounds(space), rounding(space)
    with np.errstate(invalid="ignore"):
        wrong = np.argwhere(~((values >= low - spare) & (values <= high + spare)))
    if not len(wrong):
        return None
    row, *place = wrong[0].tolist()
    index = tuple(place)
    where = f"number {','.join(map(str, place))} of it" if place else "it"
    number = values[row][index]
    return row, f"{where} ({number:g}) is outside [{space.low[index]:g}, {space.high[index]:g}]"


def differ_in_bounds_only(one: gym.Space[Any], other: gym.Space[Any]) -> bool:
    """Return whether two spaces are Boxes that differ only in their bounds, so that -1 and 1 mean other actions."""
    if not (isinstance(one, spaces.Box) and isinstance(other, spaces.Box)) or one.shape != other.shape:
        return False
    return not all(np.array_equal(*ends) for ends in zip(_bounds(one), _bounds(other), strict=True))


def require_bounds(one: str, known: gym.Space[Any], other: str, given: gym.Space[Any]) -> None:
    """Refuse a policy if -1 and 1 mean other actions than in its training.

    Args:
        one: Owner of the policy, for the beginning of the message.
        known: Actions that it has learned, in the environment's own units.
        other: Owner of the given action space.
        given: These.

    Raises:
        InputError: If only their bounds differ.
    """
    sentence = f"{one} in {spell_space(known)}, {other} in {spell_space(given)}; {ONLY_BOUNDS}."
    require(not differ_in_bounds_only(known, given), sentence, "spaces-unsupported", name="actions")


def require_range(space: spaces.Box) -> None:
    """Refuse a Box of actions whose bounds no policy can use.

    Raises:
        InputError: Naming the dimension, its bounds and what to do, if they are not finite, too far apart, or so close
            for their size that float32 or the space's type hardly tells actions apart.
    """
    finite = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
    sentence = f"The actions are {describe_space(space)} without bounds; wrap them in a bounded Box."
    require(finite, sentence, "spaces-unsupported", "actions")
    coarse = np.dtype(space.dtype) if np.dtype(space.dtype).itemsize < 4 else np.dtype(np.float32)
    for place, low, high in _dimensions(space):
        where = f"The actions are a Box with the bounds {low:.10g} to {high:.10g} in dimension {place}"
        within = high - low <= MOST_WIDTH
        sentence = f"{where}, too far apart for float32 to resolve; give the range that is used, in a wrapper."
        require(within, sentence, "spaces-unsupported", "actions")
        if high > low:
            steps = (high - low) / float(np.spacing(np.array(max(abs(low), abs(high))).astype(coarse)))
            sentence = (
                f"{where}, between which {coarse} has {steps:.0f} steps only; let actions start at 0, and add the "
                "lower bound in a wrapper."
            )
            require(steps >= FEWEST_STEPS, sentence, "spaces-unsupported", "actions")


def doubts_about_range(space: gym.Space[Any]) -> Iterator[str]:
    """Yield a warning for each dimension of a Box of actions that is too wide for exact integers."""
    if not isinstance(space, spaces.Box):
        return
    wide = [found for found in _dimensions(space) if found[2] - found[1] > RESOLVED_WIDTH]
    if wide:
        place, low, high = wide[0]
        step = (high - low) / RESOLVED_WIDTH
        yield (
            f"The actions have the bounds {low:.10g} to {high:.10g} in dimension {place}{_and_more(wide)}; a policy "
            f"acts in steps of about {step:.2g} there, so give narrower bounds if less matters."
        )


def narrow_actions(actions: np.ndarray, space: gym.Space[Any]) -> Iterator[str]:
    """Yield a warning for each dimension in which demonstrated actions vary, but use hardly any of their range.

    Args:
        actions: Actions in the environment's own units, shape `(n, *space.shape)`.
        space: Space of the actions.
    """
    if not isinstance(space, spaces.Box):
        return
    least, most = (ends.reshape(-1).astype(np.float64) for ends in (actions.min(axis=0), actions.max(axis=0)))
    used = [
        (place, low, high, least[index], most[index])
        for index, (place, low, high) in enumerate(_dimensions(space))
        if 0 < most[index] - least[index] < NARROW * (high - low)
    ]
    if used:
        place, low, high, first, last = used[0]
        yield (
            f"the demonstrated actions lie between {first:.6g} and {last:.6g} in dimension {place}{_and_more(used)}, "
            f"where the bounds are {low:.6g} to {high:.6g}; a policy's noise is far larger, so give the actions "
            "narrower bounds in a wrapper."
        )


def _and_more(found: Sequence[Any]) -> str:
    return f" (and so in {len(found) - 1} more)" if len(found) > 1 else ""


def _bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    return space.low.astype(np.float64), space.high.astype(np.float64)


def _dimensions(space: spaces.Box) -> list[tuple[str, float, float]]:
    """Return the place and the bounds of each dimension."""
    low, high = _bounds(space)
    places = [", ".join(map(str, index)) or "0" for index in np.ndindex(space.shape)]
    return list(zip(places, low.reshape(-1).tolist(), high.reshape(-1).tolist(), strict=True))
