"""The updates of a fine-tuning stage, with their settings and additional loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlstages.demonstrations.episodes import Observations
from rlstages.events import Emit, Warned
from rlstages.learners.algorithms.base import DemonstrationLoss, Experience, LossTerm, ReferenceKL
from rlstages.learners.learner import Learner
from rlstages.learners.normalizer import normalizer_of
from rlstages.specs.schedules import value_at
from rlstages.specs.settings import scheduled
from rlstages.specs.stages.fine_tuning import FineTuning
from rlstages.stages.fine_tuning.exploration_guard import ExplorationGuard
from rlstages.stages.fine_tuning.handover_guard import HandoverGuard

MOST_HELD = 2**26
"""Maximum size in bytes of rollouts that wait for an update. Each checkpoint holds them; further rollouts are lost."""


class Updates:
    """Trains the policy on rollouts, including those that were held while the policy was frozen.

    Args:
        stage: Spec of the stage.
        learner: Learner that owns the policy.
        emit: Function that takes warnings.
        guard: Guard of the hand-over, which scales steps and the KL term after a drop.
        explorer: Guard of exploration, which may require the KL term.
        shown: Observations and actions for the demonstration loss, or `None`.

    Attributes:
        number: Number of updates so far.
    """

    def __init__(
        self,
        stage: FineTuning,
        learner: Learner,
        emit: Emit,
        guard: HandoverGuard,
        explorer: ExplorationGuard,
        shown: tuple[Observations, np.ndarray] | None,
    ) -> None:
        self.number = 0
        self._stage, self._learner, self._emit = stage, learner, emit
        self._guard, self._explorer, self._shown = guard, explorer, shown
        self._settings = learner.agent.settings(stage.settings)
        self._scheduled = scheduled(type(learner.agent.algorithm))
        self._held: list[Mapping[str, Any]] = []
        self._reference = learner.reference_policy()

    def hold(self, experience: Experience) -> None:
        """Keep a rollout of the frozen policy for the next update, if there is room for it."""
        rollout = experience.taken()
        if sum(map(_size_of, [*self._held, rollout])) <= MOST_HELD:
            self._held.append(rollout)

    def anchor_here(self) -> None:
        """Make the current policy the reference policy."""
        self._learner.trust()
        self._reference = self._learner.reference_policy()

    def forget_held(self) -> None:
        """Drop the rollouts that wait, because they belong to a policy that no longer exists."""
        self._held = []

    def learn(self, experience: Experience, stage_steps: int) -> dict[str, float]:
        """Train on a rollout, and return the metrics of the update.

        Args:
            experience: Rollout.
            stage_steps: Environment steps of the stage so far, including those of the rollout.
        """
        # Schedules count from the beginning of the rollout.
        began = stage_steps - experience.steps
        if self._held:
            experience.refill([*self._held, experience.taken()])
            self._held = []
        settings = dict(self._settings)
        for name in settings.keys() & set(self._scheduled):
            settings[name] = value_at(settings[name], began / self._stage.max_steps) * self._guard.step_scale
        metrics = self._learner.algorithm.update(experience, settings, self._terms(began))
        self.absorb(experience)
        self.number += 1
        return metrics

    def absorb(self, experience: Experience) -> bool:
        """Update the observation statistics. Call this only between an update and the next rollout.

        Returns:
            Whether the policy has observation statistics.
        """
        normalizer = normalizer_of(self._learner.policy)
        if normalizer is None:
            return False
        first = normalizer.is_empty
        # The update has merged the axes of steps and environments in place.
        normalizer.absorb(experience.observations)
        constants = normalizer.constants() if first else None
        if constants is not None:
            self._emit(Warned(f"{self._stage.environment}: {constants}"))
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the rollouts that wait, and the number of updates."""
        return {"updates": self.number, "held": [dict(rollout) for rollout in self._held]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.number, self._held = state["updates"], list(state["held"])

    def _terms(self, began: int) -> list[LossTerm]:
        """Return the additional loss terms whose weights have not decayed to 0.

        Args:
            began: Step of the stage at which the rollout began.
        """
        stage, steps = self._stage, began - self._guard.began
        needed = self._explorer.anchors or self._guard.rollbacks > 0
        terms: list[LossTerm] = []
        weight = stage.anchor_weight(self._learner.agent.algorithm, steps, needed) * self._guard.anchor_scale
        if self._reference is not None and weight > 0:
            terms.append(ReferenceKL(self._reference, weight))
        weight = stage.demonstration_weight(steps)
        if self._shown is not None and weight > 0:
            terms.append(DemonstrationLoss(*self._shown, weight))
        return terms


def _size_of(kept: Mapping[str, Any]) -> int:
    """Return the size of a rollout's arrays in bytes."""
    values = [part for array in kept.values() for part in (array.values() if isinstance(array, dict) else [array])]
    return sum(part.nbytes for part in values)
