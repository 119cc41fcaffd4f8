"""The critic is fitted to a policy that it does not know, before that policy learns from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch

from rlstages.learners.algorithms.base import FitsCritic
from rlstages.learners.learner import Learner
from rlstages.learners.optimizers import load_optimizer_state, optimizer_state

LEARNING_RATE = 1e-3
AFTER_A_DROP_STEPS = 8_192
EXPLAINED, RISE = 0.2, 0.05
"""Of the returns' variance: the critic is fitted once it explains so much, or explains no more than it did."""


class CriticFit:
    """Lets only the critic learn, until it explains the returns of a rollout that it has not learned from.

    Args:
        learner: Whose critic it is.
        settings: In force in the stage.

    Attributes:
        until: The stage's step at which it ends at the latest; 0 for no fit.
    """

    def __init__(self, learner: Learner, settings: Mapping[str, Any]) -> None:
        self.until = 0
        self._settings = settings
        self._algorithm = cast(FitsCritic, learner.algorithm)
        self._fitted, self._explained = 0, -math.inf
        self._optimizer: torch.optim.Optimizer | None = None

    def begin(self, until: int) -> None:
        """Begin a fit that ends at this step of the stage at the latest."""
        self.until, self._fitted, self._explained = until, 0, -math.inf

    def explained(self, experience: Any) -> float:
        """Return the share of the returns' variance that the critic explains in experience."""
        return self._algorithm.explained(experience)

    def is_done(self, known: float, stage_steps: int) -> bool:
        """Whether the critic need not be fitted any more.

        Args:
            known: Share of the returns' variance that it explains in a rollout that it has not learned from.
            stage_steps: Of the stage, that rollout included.
        """
        stalled = self._fitted >= 2 and not known > self._explained + RISE
        done = known >= EXPLAINED or stalled or stage_steps > self.until
        if done:
            self._optimizer = None
        return done

    def learn(self, experience: Any, known: float) -> dict[str, float]:
        """Fit the critic to a rollout, in which it explained a share of the returns' variance; return the metrics."""
        self._explained = max(self._explained, known)
        self._fitted += 1
        optimizer = self._optimizer or self._make_optimizer()
        return self._algorithm.fit_critic(experience, optimizer, self._settings)

    def trust(self, experience: Any) -> None:
        """Let the critic's own estimates count in experience that was collected to fit it."""
        self._algorithm.trust_critic(experience)

    def state_dict(self) -> dict[str, Any]:
        """Return how far it has come."""
        return {
            "fit_until": self.until,
            "fitted": [self._fitted, None if math.isinf(self._explained) else self._explained],
            "critic_optimizer": None if self._optimizer is None else optimizer_state(self._optimizer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.until = state["fit_until"]
        self._fitted, known = state["fitted"]
        self._explained = -math.inf if known is None else known
        if state["critic_optimizer"] is not None:
            load_optimizer_state(self._make_optimizer(), state["critic_optimizer"])

    def _make_optimizer(self) -> torch.optim.Optimizer:
        self._optimizer = torch.optim.Adam(self._algorithm.critic_parameters(), lr=LEARNING_RATE, eps=1e-5)
        return self._optimizer
