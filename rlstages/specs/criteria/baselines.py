"""What scores are measured against: chance and the expert, as 0 and 1 of one scale for all environments."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import serializable


@serializable
@dataclass(frozen=True)
class Baselines:
    """Scores in one environment.

    Attributes:
        random: Of actions drawn at random.
        expert: Of the curriculum's expert, or `None` if it has none, or it cannot play there.
        reason: Why there is no expert's score, as half a sentence, or `None`.
    """

    random: Score
    expert: Score | None
    reason: str | None = None

    def ends(self, measure: str) -> tuple[float, float] | None:
        """Return what counts as 0 and as 1, or `None` if the expert is missing or no better than chance.

        Args:
            measure: `"success"` or `"return"`.
        """
        if self.expert is None:
            return None
        low, high = value_of(self.random, measure), value_of(self.expert, measure)
        return (low, high) if high > low else None


def value_of(score: Score, measure: str) -> float:
    """Return success or return; NaN where success is not defined."""
    value = score.success if measure == "success" else score.mean_return
    return math.nan if value is None else value


def normalized(value: float, ends: tuple[float, float]) -> float:
    """Return `(value - random) / (expert - random)`."""
    low, high = ends
    return (value - low) / (high - low)
