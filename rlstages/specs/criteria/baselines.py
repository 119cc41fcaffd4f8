"""Baselines of normalised scores: random actions score 0, the expert scores 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import serializable


@serializable
@dataclass(frozen=True)
class Baselines:
    """Baseline scores in one environment.

    Attributes:
        random: Score of random actions.
        expert: Score of the curriculum's expert, or `None` if there is no expert or it cannot play in the environment.
        reason: Reason why the expert's score is missing, as half a sentence, or `None`.
    """

    random: Score
    expert: Score | None
    reason: str | None = None

    def ends(self, measure: str) -> tuple[float, float] | None:
        """Return the values that count as 0 and as 1, or `None` without an expert that is better than that.

        Args:
            measure: `"success"` or `"return"`.
        """
        if self.expert is None:
            return None
        low, high = value_of(self.random, measure), value_of(self.expert, measure)
        return (low, high) if high > low else None


def value_of(score: Score, measure: str) -> float:
    """Return the success rate or the mean return; NaN if success is not defined."""
    value = score.success if measure == "success" else score.mean_return
    return math.nan if value is None else value


def normalized(value: float, ends: tuple[float, float]) -> float:
    """Return `(value - random) / (expert - random)`."""
    low, high = ends
    return (value - low) / (high - low)
