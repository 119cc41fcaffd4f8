"""Whether a policy has lost what a stage had reached: a gate's test, turned upside down.

A gate opens when 'the true value is below threshold minus margin' is rejected. Here 'it is still at a level' is tested,
and the level lies a margin below both what the gate asked for and what was measured when the stage was left. So no
policy is good enough for the gate and bad enough to be sent back, but for luck.
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
"""In success, or as a share of the mean return or of the returns' spread, whichever is more."""


@serializable
@dataclass(frozen=True)
class Decline:
    """What episodes of a policy say about a level that it was above.

    Attributes:
        lost: The true value is below the level, beyond luck.
        measure: `"success"` or `"return"`.
        value: The measured mean.
        bound: Upper bound of the true value that holds at all looks together.
        level: What it is tested against.
        episodes: How many were played.
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
    """What may not be lost.

    Attributes:
        measure: `"success"` or `"return"`.
        value: Below it, what was reached is lost.
        best: The most that an episode brings: 1 for success, and the highest return seen at the hand-over.
    """

    measure: str
    value: float
    best: float

    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Decline:
        """Test 'the true mean is at the level or above it' by betting on each episode to fall short of it.

        Returns are assumed to exceed the level by no more than the highest one seen, then or now, does.

        Args:
            episodes: At least one, of a frozen policy; the test may be repeated whenever one is added.
            alpha: Probability, over all looks, of calling lost what is at the level or above.
        """
        values = values_of(self.measure, episodes)
        best, mean, goal = max(self.best, float(values.max())), float(values.mean()), math.log(1 / alpha)
        lost = _evidence(values, self.value, best) >= goal
        return Decline(lost, self.measure, mean, _upper_bound(values, mean, best, goal), self.value, len(values))


def level_of(criterion: Criterion, episodes: Sequence[Episode]) -> Level | None:
    """Return what a stage had reached, less a margin: as its criterion asked for, or as measured, whichever is lower.

    Of two combined criteria the first one's measure counts, as it does wherever one number is shown.

    Args:
        criterion: Of that stage.
        episodes: Some number of them that does not depend on their outcome, of the policy that left the stage.

    Returns:
        `None` if nothing was reached that could be lost.
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
    """Return the log wealth of betting against 'the mean is at this level'; it rises with the level."""
    return bet(level - values, best - level)


def _upper_bound(values: np.ndarray, mean: float, best: float, goal: float) -> float:
    highest = best - 1e-9 * (best - mean)
    if mean >= best or _evidence(values, highest, best) < goal:
        return best
    return float(brentq(lambda level: _evidence(values, level, best) - goal, mean, highest, xtol=1e-6 * (best - mean)))
