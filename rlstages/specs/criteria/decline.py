"""A test whether a policy has lost the skill of a stage: the test of a gate with reversed hypotheses.

A gate opens when 'the true value is below threshold minus margin' is rejected. Here the null hypothesis is 'the true
value is still at the level'. The level lies a margin below both the gate's requirement and the score at the end of the
stage. So, apart from errors of the tests, no policy is good enough for the gate and bad enough to be sent back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from rlstages.specs.criteria.criterion import AllOf, AnyOf, Criterion
from rlstages.specs.criteria.episodes import Episode, score, shown, values_of
from rlstages.specs.criteria.sequential import ALPHA, bet
from rlstages.specs.criteria.thresholds import RewardThreshold, SuccessThreshold
from rlstages.specs.serialization import serializable

HYSTERESIS = 0.05
"""Margin in success, or as a share of the mean return or of the returns' standard deviation (the larger one)."""


@serializable
@dataclass(frozen=True)
class Decline:
    """The result of testing episodes against a level.

    Attributes:
        lost: Whether the true value is significantly below the level.
        measure: `"success"` or `"return"`.
        value: Measured mean.
        bound: Upper bound of the true value, valid over all looks together.
        level: Level that was tested.
        episodes: Number of episodes.
    """

    lost: bool
    measure: str
    value: float
    bound: float
    level: float
    episodes: int

    def __str__(self) -> str:
        value, bound, level = (shown(self.measure, number) for number in (self.value, self.bound, self.level))
        bounded = f", at most {bound} beyond luck" if self.bound > self.value else ""
        return f"{self.measure} {value} over {self.episodes} episodes{bounded}; below {level} it is lost"


@dataclass(frozen=True)
class Level:
    """The level of a skill that must be kept.

    Attributes:
        measure: `"success"` or `"return"`.
        value: Value below which the skill counts as lost.
        best: Largest value of an episode: 1 for success, else the highest return when the level was measured.
    """

    measure: str
    value: float
    best: float

    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Decline:
        """Test 'the true mean is at the level or above it' by betting on each episode to fall short of it.

        No return is assumed to exceed the highest one seen so far.

        Args:
            episodes: Episodes of a frozen policy, at least one. The test may be repeated whenever one is added.
            alpha: Error probability over all looks: that of calling a skill lost which is at the level or above.
        """
        values = values_of(self.measure, episodes)
        best, mean, goal = max(self.best, float(values.max())), float(values.mean()), math.log(1 / alpha)
        lost = _evidence(values, self.value, best) >= goal
        return Decline(lost, self.measure, mean, _upper_bound(values, mean, best, goal), self.value, len(values))


def level_of(criterion: Criterion, episodes: Sequence[Episode]) -> Level | None:
    """Return the level of a stage's skill: the lower of its requirement and its measured score, minus a margin.

    For combined criteria, the measure of the first counts.

    Args:
        criterion: Criterion of the stage.
        episodes: Episodes of the policy after the stage. Their number must not depend on their outcome.

    Returns:
        Level, or `None` if there is no skill that could be lost.
    """
    while isinstance(criterion, (AllOf, AnyOf)):
        criterion = criterion.first
    measured = score(episodes)
    if isinstance(criterion, SuccessThreshold):
        low = measured.success_low or 0.0
        level = min(low, criterion.threshold - criterion.margin) - HYSTERESIS
        return Level("success", level, 1.0) if level > 0.0 else None
    assert isinstance(criterion, RewardThreshold)
    returns = values_of("return", episodes)
    spread, best = float(returns.std()), float(returns.max())
    margin = criterion.margin
    if margin is None:
        margin = 0.05 * max(abs(criterion.threshold), spread)
    size = max(abs(measured.mean_return), spread)
    level = min(measured.return_low, criterion.threshold - margin) - HYSTERESIS * size
    return Level("return", level, best) if level < best else None


def _evidence(values: np.ndarray, level: float, best: float) -> float:
    """Return the log wealth of betting against 'the mean is at this level', which rises with the level."""
    return bet(level - values, best - level)


def _upper_bound(values: np.ndarray, mean: float, best: float, goal: float) -> float:
    highest = best - 1e-9 * (best - mean)
    if mean >= best or _evidence(values, highest, best) < goal:
        return best
    return float(brentq(lambda level: _evidence(values, level, best) - goal, mean, highest, xtol=1e-6 * (best - mean)))
