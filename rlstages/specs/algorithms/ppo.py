"""PPO's settings, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlstages.errors import require
from rlstages.specs.algorithms.base import CLONING, CRITIC_FIT, DEMONSTRATION_LOSS, REFERENCE_KL, AlgorithmSpec
from rlstages.specs.schedules import Schedule
from rlstages.specs.settings import documented, setting


@documented
@dataclass(frozen=True, kw_only=True)
class PPO(AlgorithmSpec):
    """Proximal policy optimisation (arXiv:1707.06347), as stable-baselines3 implements it."""

    implementation: ClassVar[str] = "rlstages.learners.algorithms.on_policy.algorithm:OnPolicy"
    supports: ClassVar[frozenset[str]] = frozenset({CLONING, CRITIC_FIT, REFERENCE_KL, DEMONSTRATION_LOSS})
    kl_when_needed: ClassVar[float] = 0.1

    n_steps: int = setting(128, "Steps per environment and rollout.", least=2)
    gamma: float = setting(0.99, "Discount factor.", above=0.0, most=1.0)
    gae_lambda: float = setting(0.95, "Lambda of generalised advantage estimation.", least=0.0, most=1.0)
    learning_rate: Schedule = setting(
        3e-4, "Learning rate of Adam, or a `Linear` schedule over the stage.", above=0.0, per_stage=True
    )
    ent_coef: float = setting(0.0, "Weight of the entropy bonus.", least=0.0, per_stage=True)
    vf_coef: float = setting(0.5, "Weight of the value loss.", least=0.0, per_stage=True)
    max_grad_norm: float = setting(
        0.5, "Maximum norm of the gradient; larger gradients are scaled down.", above=0.0, per_stage=True
    )
    clip_range: Schedule = setting(
        0.2, "Clip range of the probability ratio, or a `Linear` schedule over the stage.", above=0.0, per_stage=True
    )
    clip_range_vf: Schedule | None = setting(
        None,
        "Clip range of the change of values, in units of the returns, or a `Linear` schedule. `None` does not "
        "clip them, which was no worse in arXiv:2006.05990.",
        above=0.0,
        per_stage=True,
    )
    n_epochs: int = setting(10, "Passes over each rollout.", least=1, per_stage=True)
    batch_size: int = setting(256, "Transitions per minibatch.", least=2, per_stage=True)
    target_kl: float | None = setting(
        None,
        "An update ends early when the KL divergence from the policy before it exceeds 1.5 times this value, in nats.",
        above=0.0,
        per_stage=True,
    )

    def steps_between_updates(self, n_envs: int) -> int:
        """Return the number of environment steps of a rollout, over all environments."""
        return n_envs * self.n_steps

    def check(self, where: str, n_envs: int) -> None:
        """Refuse minibatches that are larger than a rollout."""
        rollout = self.steps_between_updates(n_envs)
        whole = rollout >= self.batch_size
        sentence = f"{where}: a rollout has {rollout} steps, less than batch_size={self.batch_size}."
        require(whole, sentence, "setting-conflict", where, "batch_size")
