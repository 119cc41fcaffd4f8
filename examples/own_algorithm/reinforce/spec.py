"""The algorithm's settings as frozen data."""

from dataclasses import dataclass, field
from typing import ClassVar

from rlstages import AlgorithmSpec
from rlstages.specs.schedules import Schedule
from rlstages.specs.settings import about, documented


@documented
@dataclass(frozen=True, kw_only=True)
class REINFORCE(AlgorithmSpec):
    """REINFORCE (Williams 1992) with a learned baseline: one gradient step for each rollout."""

    implementation: ClassVar[str] = "reinforce.algorithm:Reinforce"
    supports: ClassVar[frozenset[str]] = frozenset({"cloning", "critic fit", "reference KL", "demonstration loss"})
    gae_lambda: ClassVar[float] = 1.0

    n_steps: int = field(default=128, metadata=about("Steps per environment between two updates.", least=2))
    gamma: float = field(default=0.99, metadata=about("Discount.", above=0.0, most=1.0))
    learning_rate: Schedule = field(default=3e-3, metadata=about("RMSprop's step size.", above=0.0, per_stage=True))
    baseline_coef: float = field(
        default=0.5, metadata=about("Weight of the baseline's squared error.", least=0.0, per_stage=True)
    )
    max_grad_norm: float = field(
        default=0.5, metadata=about("Gradients are scaled down to this norm.", above=0.0, per_stage=True)
    )

    def steps_between_updates(self, n_envs: int) -> int:
        """Return the environment steps of a rollout, over all environments."""
        return n_envs * self.n_steps
