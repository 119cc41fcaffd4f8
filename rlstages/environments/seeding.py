"""Every episode has a seed of its own."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What episodes are played for; each has seeds of its own."""

    TRAINING = 0
    DEMONSTRATION = 1
    EVALUATION = 2
    CONFIRMATION = 3
    SCREENING = 4


def episode_seed(run_seed: int, stage: int, purpose: Purpose, copy: int, number: int) -> int:
    """Return the seed of one episode: a function of these five numbers, and of nothing else."""
    entropy = [run_seed, stage, int(purpose), copy, number]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0] >> 1)


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
