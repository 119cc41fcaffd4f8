"""The stage as frozen data: what it needs, and what others need to know of it."""

from dataclasses import dataclass
from typing import ClassVar

from rlstages import Environment, StageSpec


@dataclass(frozen=True)
class Undecided(StageSpec):
    """Raise the entropy of a policy over the observations of random play, without any reward.

    Args:
        name: Of the stage.
        environment: Where chance plays.
        episodes: Of chance.
        max_epochs: Passes over their observations.
        learning_rate: Adam's step size.
    """

    runner: ClassVar[str] = "undecided.runner:UndecidedRunner"
    activity: ClassVar[str] = "evening out"

    name: str
    environment: Environment
    episodes: int = 8
    max_epochs: int = 5
    learning_rate: float = 3e-4
    until: None = None
    evaluation_episodes: int = 0

    @property
    def epoch_limit(self) -> int:
        """Passes after which it ends."""
        return self.max_epochs

    def __str__(self) -> str:
        return f"grow undecided in {self.environment}, over {self.episodes} episodes of chance"
