"""A2C's settings, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlstages.specs.algorithms.base import CLONING, CRITIC_FIT, DEMONSTRATION_LOSS, REFERENCE_KL, AlgorithmSpec
from rlstages.specs.schedules import Schedule
from rlstages.specs.settings import documented, setting


@documented
@dataclass(frozen=True, kw_only=True)
class A2C(AlgorithmSpec):
    """Advantage actor-critic (arXiv:1602.01783), synchronous, as stable-baselines3 implements it."""

    implementation: ClassVar[str] = "rlstages.learners.algorithms.on_policy.algorithm:OnPolicy"
    supports: ClassVar[frozenset[str]] = frozenset({CLONING, CRITIC_FIT, REFERENCE_KL, DEMONSTRATION_LOSS})

    n_steps: int = setting(8, "Steps per environment and rollout.", least=2)
    gamma: float = setting(0.99, "Discount factor.", above=0.0, most=1.0)
    gae_lambda: float = setting(1.0, "Lambda of generalised advantage estimation.", least=0.0, most=1.0)
    learning_rate: Schedule = setting(
        7e-4, "Learning rate of RMSprop, or a `Linear` schedule over the stage.", above=0.0, per_stage=True
    )
    ent_coef: float = setting(0.0, "Weight of the entropy bonus.", least=0.0, per_stage=True)
    vf_coef: float = setting(0.5, "Weight of the value loss.", least=0.0, per_stage=True)
    max_grad_norm: float = setting(
        0.5, "Maximum norm of the gradient; larger gradients are scaled down.", above=0.0, per_stage=True
    )

    def steps_between_updates(self, n_envs: int) -> int:
        """Return the number of environment steps of a rollout, over all environments."""
        return n_envs * self.n_steps
