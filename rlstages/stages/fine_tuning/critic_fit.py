"""The critic fit: after a hand-over, the critic is trained before the policy learns from it."""

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
"""The fit ends when the explained variance reaches the first number, or no longer rises by the second."""


class CriticFit:
    """Trains only the critic, until it explains the returns of a rollout that it has not been trained on.

    Args:
        learner: Learner that owns the critic.
        settings: Settings of the algorithm in this stage.

    Attributes:
        until: Step of the stage at which the fit ends at the latest; 0 for no fit.
    """

    def __init__(self, learner: Learner, settings: Mapping[str, Any]) -> None:
        self.until = 0
        self._settings = settings
        self._algorithm = cast(FitsCritic, learner.algorithm)
        self._fitted, self._explained = 0, -math.inf
        self._optimizer: torch.optim.Optimizer | None = None

    def begin(self, until: int) -> None:
        """Begin a fit that ends at the given step of the stage at the latest."""
        self.until, self._fitted, self._explained = until, 0, -math.inf

    def explained(self, experience: Any) -> float:
        """Return the share of the returns' variance that the critic explains."""
        return self._algorithm.explained(experience)

    def is_done(self, known: float, stage_steps: int) -> bool:
        """Return whether the fit is finished.

        Args:
            known: Explained variance of a rollout that the critic has not been trained on.
            stage_steps: Environment steps of the stage so far, including that rollout.
        """
        stalled = self._fitted >= 2 and not known > self._explained + RISE
        done = known >= EXPLAINED or stalled or stage_steps > self.until
        if done:
            self._optimizer = None
        return done

    def learn(self, experience: Any, known: float) -> dict[str, float]:
        """Fit the critic to a rollout, whose explained variance was `known`; return the metrics."""
        self._explained = max(self._explained, known)
        self._fitted += 1
        optimizer = self._optimizer or self._make_optimizer()
        return self._algorithm.fit_critic(experience, optimizer, self._settings)

    def trust(self, experience: Any) -> None:
        """Recompute the advantages of experience that was collected for the fit, with the critic's estimates."""
        self._algorithm.trust_critic(experience)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress of the fit."""
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
