"""Every episode has a seed of its own."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages.environments.spaces import detached


class Purpose(IntEnum):
    """What episodes are played for; each has seeds of its own."""

    TRAINING = 0
    DEMONSTRATION = 1
    EVALUATION = 2
    CONFIRMATION = 3
    SCREENING = 4
    TRIAL = 5


def episode_seed(run_seed: int, stage: int, purpose: Purpose, copy: int, number: int) -> int:
    """Return the seed of one episode: a function of these five numbers, and of nothing else."""
    entropy = [run_seed, stage, int(purpose), copy, number]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0] >> 1)


_COPY = 2**64
"""The number, larger than any episode's, that stands for the copy itself."""


class EpisodeSeeds:
    """The seeds of one copy's episodes, in order.

    Attributes:
        number: Of the next episode, from 0.
    """

    def __init__(self, run_seed: int, stage: int, purpose: Purpose, copy: int) -> None:
        self.number = 0
        self._place = (run_seed, stage, purpose, copy)

    def next(self) -> int:
        """Return the seed of the next episode."""
        self.number += 1
        return episode_seed(*self._place, self.number - 1)

    @property
    def of_copy(self) -> int:
        """The seed of the copy itself, which none of its episodes has."""
        return episode_seed(*self._place, _COPY)


class SeededEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """Gives each episode the next seed of its copy, unless `reset` is given one."""

    def __init__(self, env: gym.Env[Any, Any], seeds: EpisodeSeeds) -> None:
        super().__init__(env)
        self._episode_seeds = seeds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode."""
        return self.env.reset(seed=self._episode_seeds.next() if seed is None else seed, options=options)

    def replay(self, number: int, actions: np.ndarray) -> tuple[Any, bool]:
        """Play an episode again up to where its actions so far lead.

        Args:
            number: Of the episode.
            actions: Those taken in it, shape `(k, *action_shape)`.

        Returns:
            The last observation, and whether it belongs to that episode: where it ended before its actions did, the
            next one has begun.
        """
        self._episode_seeds.number = number
        observation, _ = self.reset()
        for action in actions:
            # A copy: the environment may write into its action, and a resumed run keeps these.
            observation, _, terminated, truncated, _ = self.env.step(detached(action))
            if terminated or truncated:
                return self.reset()[0], False
        return observation, True
