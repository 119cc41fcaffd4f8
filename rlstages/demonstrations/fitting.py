"""Fitting demonstrations to the spaces of an environment: checks, and conversion to the policy's form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecTransposeImage

from rlstages.demonstrations.episodes import (
    Demonstration,
    Demonstrations,
    Observations,
)
from rlstages.environments.action_units import narrow_actions, outside, to_units
from rlstages.environments.guard import SINGLE
from rlstages.environments.ranges import Ranges
from rlstages.environments.spaces import describe_space
from rlstages.errors import InputError, require


def place_demonstrations(
    name: str, kept: Demonstrations, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> Demonstrations:
    """Convert demonstrations to the policy's form: images with channels first, and actions in [-1, 1].

    The units of actions are those of `rlstages.environments.action_units`. Actions of a Box become flat, shape
    `(T, numbers)`, as a policy's distribution takes them.

    Args:
        name: Name of the demonstrations, for messages.
        kept: Episodes.
        observation_space: Observation space of the policy.
        action_space: Action space of the environment, in its own units.

    Raises:
        InputError: If they do not fit the spaces; see `check_demonstrations`.
    """
    placed = _channels_first(kept, observation_space)
    check_demonstrations(name, placed, observation_space, action_space)
    placed = _typed(placed, observation_space, action_space)
    if not isinstance(action_space, spaces.Box):
        return placed
    acted = (to_units(episode.actions, action_space).reshape(len(episode), -1) for episode in placed.episodes)
    return Demonstrations(tuple(replace(e, actions=a) for e, a in zip(placed.episodes, acted, strict=True)))


def doubtful(shown: Demonstrations, space: gym.Space[Any], action_space: gym.Space[Any]) -> Iterator[str]:
    """Yield warnings about demonstrations that are allowed but hardly intended: another type or scale.

    Args:
        shown: Episodes.
        space: Space of the observations, as the policy sees them.
        action_space: Action space of the environment, in its own units.
    """
    ranges = Ranges(space)
    parts = space.spaces if isinstance(space, spaces.Dict) else {SINGLE: space}
    seen = shown.episodes[0].observations
    for field, part in parts.items():
        held = (seen[field] if isinstance(seen, dict) else seen).dtype
        if held != part.dtype:
            yield f"the demonstrations hold {field} as {held}; it is converted to its space's {part.dtype}."
    for number, episode in enumerate(_channels_first(shown, space).episodes):
        for found in ranges.observations_outside(episode.observations):
            place = f"episode {number}, step {found.copy}"
            yield f"the demonstrations hold {found.what} (first seen: {found.seen}, {place})."
    yield from narrow_actions(shown.transitions()[1], action_space)


def _channels_first(shown: Demonstrations, space: gym.Space[Any]) -> Demonstrations:
    """Return the demonstrations with channels first in images."""

    def place(array: np.ndarray, part: gym.Space[Any]) -> np.ndarray:
        if array.ndim == 4 and array.shape[1:] != part.shape:
            return np.stack([VecTransposeImage.transpose_image(image) for image in array])
        return array

    def convert(episode: Demonstration) -> Demonstration:
        seen = episode.observations
        if isinstance(seen, dict):
            known = space.spaces if isinstance(space, spaces.Dict) else {}
            seen = {key: place(value, known[key]) if key in known else value for key, value in seen.items()}
        else:
            seen = place(seen, space)
        return replace(episode, observations=seen)

    return Demonstrations(tuple(convert(episode) for episode in shown.episodes))


def check_demonstrations(
    name: str, demonstrations: Demonstrations, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> None:
    """Refuse demonstrations that do not fit the spaces of an environment.

    Raises:
        InputError: Naming the episode, the step and what is wrong: shapes, numbers that are not finite, actions out
            of range.
    """
    sentence = f"{name}: no episode is left to clone; record more, or filter less."
    require(len(demonstrations) > 0, sentence, "demonstrations-invalid", name)
    for number, episode in enumerate(demonstrations.episodes):
        where = f"{name}, episode {number}"
        _check_observations(where, episode.observations, observation_space)
        _check_actions(where, episode.actions, action_space)
        finite = np.isfinite(episode.rewards)
        place = f"{where}, step {int(np.argmin(finite))}"
        sentence = f"{place}: the reward is not finite."
        require(bool(finite.all()), sentence, "demonstrations-invalid", place, "rewards")


def _typed(
    demonstrations: Demonstrations, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> Demonstrations:
    """Return demonstrations with whole numbers in the types of their spaces, whatever types a file has them in.

    Args:
        demonstrations: Episodes that `check_demonstrations` has let pass.
        observation_space: Observation space of the observations; a Box keeps its numbers as they are.
        action_space: Action space of the actions.
    """

    def cast_to(array: np.ndarray, space: gym.Space[Any]) -> np.ndarray:
        return array if isinstance(space, spaces.Box) else array.astype(space.dtype, copy=False)

    def seen(observations: Observations) -> Observations:
        if isinstance(observations, dict):
            parts = cast(spaces.Dict, observation_space).spaces
            return {key: cast_to(array, parts[key]) for key, array in observations.items()}
        return cast_to(observations, observation_space)

    return Demonstrations(
        tuple(
            replace(e, observations=seen(e.observations), actions=cast_to(e.actions, action_space))
            for e in demonstrations.episodes
        )
    )


def _check_observations(where: str, observations: Observations, space: gym.Space[Any]) -> None:
    if isinstance(space, spaces.Dict):
        keys = list(observations) if isinstance(observations, dict) else []
        sentence = f"{where}: the observations have the keys {keys}, the space {list(space.spaces)}."
        require(sorted(keys) == sorted(space.spaces), sentence, "demonstrations-invalid", where, "observations")
        for key, part in space.spaces.items():
            _check_array(f"{where}, {key}", cast("dict[str, np.ndarray]", observations)[key], part, "observations")
    else:
        sentence = f"{where}: the observations are a dictionary, the space is not."
        require(not isinstance(observations, dict), sentence, "demonstrations-invalid", where, "observations")
        _check_array(where, cast(np.ndarray, observations), space, "observations")


def _check_actions(where: str, actions: np.ndarray, space: gym.Space[Any]) -> None:
    _check_array(where, actions, space, "actions")
    if isinstance(space, spaces.Box):
        wrong = outside(actions, space)
        if wrong is not None:
            step, what = wrong
            place = f"{where}, step {step}"
            sentence = f"{place}: the action is {actions[step]}, and {what}."
            raise InputError(sentence, "demonstrations-invalid", place, "actions")


def _check_array(where: str, array: np.ndarray, space: gym.Space[Any], what: str) -> None:
    shape = space.shape or ()
    column = array.shape[1:] == (*shape, 1)
    sentence = (
        f"{where}: the {what} have the shape {array.shape[1:]}, but the space is {describe_space(space)}"
        f"{f'; write {what}[..., 0]' if column else ''}."
    )
    require(array.shape[1:] == shape, sentence, "demonstrations-invalid", where, what)
    kind = array.dtype.kind
    sentence = f"{where}: the {what} are of type {array.dtype}; give numbers."
    require(kind in "fiub", sentence, "demonstrations-invalid", where, what)
    if kind == "f":
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        step = int(np.argmin(finite))
        place = f"{where}, step {step}"
        sentence = f"{place}: the {what} hold a number that is not finite."
        require(bool(finite.all()), sentence, "demonstrations-invalid", place, what)
    if isinstance(space, spaces.Discrete):
        low, most = int(space.start), int(space.start + space.n) - 1
        _check_range(where, array, low, most, what)
    elif isinstance(space, spaces.MultiDiscrete):
        _check_range(where, array, space.start, space.start + space.nvec - 1, what)
    elif isinstance(space, spaces.MultiBinary):
        _check_range(where, array, 0, 1, what)
    elif isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "iu":
        _check_range(where, array, space.low, space.high, what)


def _check_range(where: str, array: np.ndarray, low: int | np.ndarray, most: int | np.ndarray, what: str) -> None:
    inside = ((array >= low) & (array <= most) & (array == np.round(array))).reshape(len(array), -1).all(axis=1)
    if not inside.all():
        step, limits = int(np.argmin(inside)), f"from {_in_words(low)} to {_in_words(most)}"
        place = f"{where}, step {step}"
        if array[step].size > 8:
            sentence = f"{place}: the {what} hold a number that is not a whole number {limits}."
            raise InputError(sentence, "demonstrations-invalid", place, what)
        sentence = f"{place}: the {what[:-1]} {array[step]} is not a whole number {limits}."
        raise InputError(sentence, "demonstrations-invalid", place, what)


def _in_words(limit: int | np.ndarray) -> str:
    different = np.unique(limit)
    return str(different[0]) if len(different) == 1 else str(np.asarray(limit).tolist())
