"""What a stage clones, as arrays: to learn from, to measure on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from rlstages.demonstrations.episodes import Demonstrations, Observations, take
from rlstages.demonstrations.fitting import place_demonstrations
from rlstages.learners.learner import Learner
from rlstages.specs.stages.cloning import BehaviorCloning

MEASURED_AT_ONCE = 4096


class CloningData:
    """Demonstrations as the policy takes them, split into what is learned from and what is measured on.

    Args:
        shown: Those that the stage clones.
        stage: Says how to split them and how large batches are.
        learner: Whose policy learns from them.
        seed: Of the split, the batches and the sample.

    Attributes:
        score: Of whoever showed.
        learned: Observations and actions to learn from, first axis the transitions.
        held_out: The same of whole episodes that are only measured on; empty if there are none.
        held_out_episodes: How many these are.
        batches: What is learned from, batch by batch.
        sample: Observations and actions out of `learned`, at most `MEASURED_AT_ONCE`.

    Raises:
        InputError: If the demonstrations do not fit the policy, or there are none.
    """

    def __init__(self, shown: Demonstrations, stage: BehaviorCloning, learner: Learner, seed: int) -> None:
        placed = place_demonstrations(stage.source, shown, learner.policy.observation_space, learner.action_space)
        if isinstance(learner.action_space, spaces.MultiBinary):
            # torch's Bernoulli distribution takes no whole numbers.
            placed = Demonstrations(
                tuple(replace(episode, actions=episode.actions.astype(np.float32)) for episode in placed.episodes)
            )
        self.score = placed.score()
        learned, held_out = placed.split(stage.held_out, seed)
        self.learned = learned.transitions()
        self.held_out_episodes = len(held_out)
        self.held_out: tuple[Observations, np.ndarray] = (
            held_out.transitions() if len(held_out) else (np.empty(0), np.empty(0))
        )
        self.batches = EpochBatches(*self.learned, stage.batch_size, seed)
        rows = np.random.default_rng(seed).permutation(len(self.learned[1]))[:MEASURED_AT_ONCE]
        self.sample = take(self.learned[0], rows), self.learned[1][rows]


class EpochBatches:
    """Shuffled batches for `imitation`, in an order that depends on the seed and the epoch alone.

    Args:
        observations: All of them, first axis the transitions.
        actions: One for each of them.
        batch_size: Of each batch; a remainder is left out of the epoch.
        seed: Of the order.
    """

    def __init__(self, observations: Observations, actions: np.ndarray, batch_size: int, seed: int) -> None:
        self.observations, self.actions, self.seed = observations, actions, seed
        self.batch_size = min(batch_size, len(actions))
        self.epoch = 0

    def rows(self) -> list[np.ndarray]:
        """Return the rows of each batch of this epoch."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.actions))
        ends = range(self.batch_size, len(order) + 1, self.batch_size)
        return [order[end - self.batch_size : end] for end in ends]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from imitation.data.types import DictObs

        for rows in self.rows():
            seen = take(self.observations, rows)
            yield {"obs": DictObs(seen) if isinstance(seen, dict) else seen, "acts": self.actions[rows]}
