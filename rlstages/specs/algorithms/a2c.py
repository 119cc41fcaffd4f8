"""A2C's settings, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from rlstages.specs.algorithms.base import CLONING, CRITIC_FIT, DEMONSTRATION_LOSS, REFERENCE_KL, AlgorithmSpec
from rlstages.specs.schedules import Schedule
from rlstages.specs.settings import about, documented


@documented
@dataclass(frozen=True, kw_only=True)
class A2C(AlgorithmSpec):
    """Advantage actor-critic (arXiv:1602.01783), synchronous, as stable-baselines3 implements it."""

    implementation: ClassVar[str] = "rlstages.learners.algorithms.on_policy.algorithm:OnPolicy"
    supports: ClassVar[frozenset[str]] = frozenset({CLONING, CRITIC_FIT, REFERENCE_KL, DEMONSTRATION_LOSS})

    n_steps: int = field(default=8, metadata=about("Steps per environment and rollout.", least=2))
    gamma: float = field(default=0.99, metadata=about("Discount factor.", above=0.0, most=1.0))
    gae_lambda: float = field(
        default=1.0, metadata=about("Lambda of generalised advantage estimation.", least=0.0, most=1.0)
    )
    learning_rate: Schedule = field(
        default=7e-4,
        metadata=about("Learning rate of RMSprop, or a `Linear` schedule over the stage.", above=0.0, per_stage=True),
    )
    ent_coef: float = field(default=0.0, metadata=about("Weight of the entropy bonus.", least=0.0, per_stage=True))
    vf_coef: float = field(default=0.5, metadata=about("Weight of the value loss.", least=0.0, per_stage=True))
    max_grad_norm: float = field(
        default=0.5,
        metadata=about("Maximum norm of the gradient; larger gradients are scaled down.", above=0.0, per_stage=True),
    )

    def steps_between_updates(self, n_envs: int) -> int:
        """Return the environment steps of a rollout, over all environments."""
        return n_envs * self.n_steps
