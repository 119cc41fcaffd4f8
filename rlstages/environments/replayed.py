"""The actions of the episodes under way: with their starts, they are the state of copies that are not a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlstages.environments.guard import CopyError
from rlstages.environments.in_process import InProcess
from rlstages.environments.reports import EnvironmentFault
from rlstages.environments.seeding import EpisodeStart
from rlstages.environments.spaces import stack
from rlstages.environments.subprocesses import Workers
from rlstages.specs.environment import Environment

_LEAST_REMEMBERED = 64


class Played:
    """The last actions of all copies, at least those of the episodes under way."""

    def __init__(self) -> None:
        self._actions: list[np.ndarray] = []
        self._most = _LEAST_REMEMBERED

    def clear(self) -> None:
        """Forget them: all copies were reset."""
        self._actions.clear()

    def add(self, actions: np.ndarray, lengths: np.ndarray) -> None:
        """Remember actions, and forget those that belong to no episode under way.

        Args:
            actions: Of the coming step, one per copy; kept as they are.
            lengths: Steps of each copy's episode before that step, shape `(copies,)`.
        """
        self._actions.append(np.array(actions))
        if len(self._actions) > self._most:
            longest = int(lengths.max())
            del self._actions[: -1 - longest]
            self._most = 2 * longest + _LEAST_REMEMBERED

    def so_far(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return each copy's actions since its episode began, `lengths` steps ago."""
        end = len(self._actions)
        starts = (end - int(length) for length in lengths)
        return [np.array([actions[copy] for actions in self._actions[start:]]) for copy, start in enumerate(starts)]

    def replay(
        self, venv: InProcess | Workers, spec: Environment, given: Sequence[tuple[int, EpisodeStart, np.ndarray]]
    ) -> tuple[Any, list[int]]:
        """Play the copies' episodes again, and remember their actions.

        Args:
            venv: The copies.
            spec: What they are copies of.
            given: The number of each copy's episode, its start and its actions so far.

        Returns:
            The observations, and the copies whose episode ended before its actions did.

        Raises:
            EnvironmentFault: If a copy fails, dies or hangs.
        """
        try:
            observations, whole = zip(*venv.replay(given), strict=True)
        except CopyError as error:
            place = f"when its episode {given[error.copy or 0][0]} was played again"
            sentence = f"{spec}: copy {error.copy} {error.what}, {place}."
            raise EnvironmentFault(sentence, where=spec, trace=error.trace) from error
        so_far = [actions for _, _, actions in given]
        longest = max(so_far, key=len)
        played = np.zeros((len(longest), len(given), *longest.shape[1:]), longest.dtype)
        for copy, actions in enumerate(so_far):
            if len(actions):
                played[len(longest) - len(actions) :, copy] = actions
        self._actions = list(played)
        return stack(observations, venv.observation_space), [copy for copy, kept in enumerate(whole) if not kept]


def different_copies(observations: Any, others: Any) -> list[int]:
    """Return the copies whose observations are not the same."""
    if isinstance(observations, dict):
        return sorted({copy for key, part in observations.items() for copy in different_copies(part, others[key])})
    unequal: np.ndarray = (observations != others).reshape(len(observations), -1).any(axis=1)
    return [int(copy) for copy in np.flatnonzero(unequal)]
