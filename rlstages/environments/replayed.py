"""The actions of the episodes under way: with their starts, they are the state of copies that are not a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlstages.environments.guard import CopyError
from rlstages.environments.in_process import InProcess
from rlstages.environments.reports import Counts, EnvironmentFault
from rlstages.environments.seeding import EpisodeStart
from rlstages.environments.spaces import stack
from rlstages.environments.subprocesses import Workers
from rlstages.specs.environment import Environment

_LEAST_REMEMBERED = 64


class Replayed:
    """Copies whose state is their episodes' starts and actions; a batch has its state in itself, under the same names.

    Args:
        venv: The copies.
        spec: What they are copies of.
        counts: Where each copy is.
    """

    def __init__(self, venv: InProcess | Workers, spec: Environment, counts: Counts) -> None:
        self._venv, self._spec, self._counts = venv, spec, counts
        # The last actions of all copies, at least those of the episodes under way.
        self._actions: list[np.ndarray] = []
        self._most = _LEAST_REMEMBERED

    def add(self, actions: np.ndarray) -> None:
        """Remember the actions of the coming step, and forget those that belong to no episode under way."""
        self._actions.append(np.array(actions))
        if len(self._actions) > self._most:
            longest = int(self._counts.lengths.max())
            del self._actions[: -1 - longest]
            self._most = 2 * longest + _LEAST_REMEMBERED

    def state_dict(self) -> list[np.ndarray]:
        """Return each copy's actions since its episode began."""
        starts = (len(self._actions) - int(length) for length in self._counts.lengths)
        return [np.array([actions[copy] for actions in self._actions[start:]]) for copy, start in enumerate(starts)]

    def load_state_dict(
        self, state: Sequence[np.ndarray], numbers: Sequence[int], starts: Sequence[EpisodeStart], seen: Any
    ) -> tuple[Any, list[int]]:
        """Play the copies' episodes again.

        Args:
            state: What `state_dict` returned.
            numbers: Of the episode that each copy is in.
            starts: Of these episodes.
            seen: What the copies' observations were.

        Returns:
            Their observations, and the copies whose episode ended before its actions did.

        Raises:
            EnvironmentFault: If a copy fails, dies or hangs.
        """
        try:
            observations, whole = zip(*self._venv.replay(list(zip(numbers, starts, state, strict=True))), strict=True)
        except CopyError as error:
            number = numbers[error.copy or 0]
            sentence = f"{self._spec}: copy {error.copy} {error.what}, when its episode {number} was played again."
            where = f"{self._spec}: copy {error.copy}, episode {number}"
            raise EnvironmentFault(sentence, where=where, trace=error.trace) from error
        longest = max(state, key=len)
        played = np.zeros((len(longest), len(state), *longest.shape[1:]), longest.dtype)
        for copy, actions in enumerate(state):
            if len(actions):
                played[len(longest) - len(actions) :, copy] = actions
        self._actions = list(played)
        return stack(observations, self._venv.observation_space), [c for c, kept in enumerate(whole) if not kept]


def different_copies(observations: Any, others: Any) -> list[int]:
    """Return the copies whose observations are not the same."""
    if isinstance(observations, dict):
        return sorted({copy for key, part in observations.items() for copy in different_copies(part, others[key])})
    unequal: np.ndarray = (observations != others).reshape(len(observations), -1).any(axis=1)
    return [int(copy) for copy in np.flatnonzero(unequal)]
