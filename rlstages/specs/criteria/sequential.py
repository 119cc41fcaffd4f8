"""Sequential tests of a mean, which may be evaluated after every episode.

Evidence is the logarithm (in nats) of the wealth of a gambler who starts with 1 and bets against the tested value. If
this value is true, the wealth reaches `1 / alpha` with a probability of at most `alpha`, over all looks together (Ville
1939).

Sources: Wald (1945), Sequential Tests of Statistical Hypotheses; Lan, Simon and Halperin (1982), Stochastically
curtailed tests in long-term clinical trials; Waudby-Smith and Ramdas (2020), Estimating means of bounded random
variables by betting, arXiv:2010.09686; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021), Time-uniform central
limit theory and asymptotic confidence sequences, arXiv:2103.06476.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

ALPHA = 0.05
FUTILITY = 0.05
POWER = 0.94
CURTAILED = 0.8
"""A fixed-size test ends early once its outcome has this probability under the null hypothesis."""
QUICK_SHARE = 0.1
"""Share of the initial wealth that bets on a policy that hardly ever fails."""


def likelihood_ratio(solved: int, failed: int, null: float, alternative: float) -> float:
    """Return the log likelihood ratio (in nats) of two success rates, `alternative` against `null`."""
    return solved * math.log(alternative / null) + failed * math.log((1 - alternative) / (1 - null))


@dataclass(frozen=True)
class ShareTest:
    """A sequential test of a success rate, planned for a maximum number of episodes.

    Most of the wealth follows a martingale derived from the fixed-size test: the conditional probability that at least
    `solved` of `episodes` will be solved, divided by its initial value. This keeps the power of the fixed-size test and
    ends early when its outcome is foreseeable (stochastic curtailment). The rest of the wealth follows the likelihood
    ratio for a success rate near 1.

    Attributes:
        null: Success rate of the null hypothesis.
        alternative: Success rate for which the test is planned.
        episodes: Maximum number of episodes.
        solved: Number of solved episodes, among the maximum number, that rejects the null hypothesis.
    """

    null: float
    alternative: float
    episodes: int
    solved: int

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def plan(null: float, alternative: float, alpha: float, most: int) -> ShareTest:
        """Return the shortest test that detects a policy with the alternative's success rate with probability `POWER`.

        Args:
            null: Success rate of the null hypothesis, in (0, 1).
            alternative: Success rate of the alternative, above `null` and below 1.
            alpha: Probability of rejecting a true null hypothesis.
            most: Maximum number of episodes. If it is too small for `POWER`, the test uses all of them.
        """
        episodes = np.arange(1, most + 1)
        solved = _least_significant(null, alpha * (1 - QUICK_SHARE) * CURTAILED, most)
        enough = bdtrc(solved - 1, episodes, alternative) >= POWER
        planned = int(np.argmax(enough)) if enough.any() else most - 1
        return ShareTest(null, alternative, planned + 1, int(solved[planned]))

    def evidence(self, solved: int, failed: int, null: float) -> float:
        """Return the log wealth against `null` in nats, which falls as `null` rises."""
        quick = likelihood_ratio(solved, failed, null, nearly_always(null)) + math.log(QUICK_SHARE)
        chance = self._log_chance(solved, failed, null) - self._log_chance(0, 0, null)
        if math.isnan(chance):  # Too small for floats at the beginning and now.
            return quick
        return float(np.logaddexp(chance + math.log(1 - QUICK_SHARE), quick))

    def is_futile(self, solved: int, failed: int) -> bool:
        """Return whether a policy with the alternative's success rate would hardly have this result, or hardly pass."""
        if likelihood_ratio(solved, failed, self.null, self.alternative) <= math.log(FUTILITY):
            return True
        return self._log_chance(solved, failed, self.alternative) <= math.log(FUTILITY)

    def _log_chance(self, solved: int, failed: int, share: float) -> float:
        """Return the log probability of ending with enough solved episodes at this success rate."""
        left, wanted = self.episodes - solved - failed, self.solved - solved
        if wanted <= 0:
            return 0.0
        chance = float(bdtrc(wanted - 1, left, share)) if wanted <= left else 0.0
        return math.log(chance) if chance > 0 else -math.inf


def _least_significant(null: float, alpha: float, most: int) -> np.ndarray:
    """Return, for 1 to `most` episodes, the smallest number of solved ones that rejects `null`."""
    solved, least = 0, []
    for episodes in range(1, most + 1):
        # bdtrc is the probability of more than `solved` successes.
        while bdtrc(solved, episodes, null) > alpha:
            solved += 1
        least.append(solved + 1)
    return np.array(least)


def nearly_always(null: float) -> float:
    """Return the success rate three quarters of the way from `null` to 1."""
    return (null + 3) / 4


def bet(gains: np.ndarray, reach: float) -> float:
    """Return the log wealth (in nats) of starting with 1 and betting on each episode's return.

    The wealth is a weighted mean over several stakes, because the best stake depends on the unknown spread. The largest
    stake has half of the weight.

    Args:
        gains: Returns minus the tested value, shape `(n,)`.
        reach: Largest possible loss of an episode.
    """
    if reach == 0.0:
        return 0.0
    # If almost nothing can be lost, the wealth may overflow; it has passed every goal long before.
    with np.errstate(over="ignore"):
        won = np.minimum(gains / reach, 1e300)
    kept = np.maximum(1 + np.outer(_STAKES, won), 1e-12)
    wealth = np.log(kept).sum(axis=1)
    most = float(wealth.max())
    return most + math.log(float(_SHARES @ np.exp(wealth - most)))


_STAKES = np.array([0.95, 0.5, 0.25, 0.1, 0.05, 0.02])
_SHARES = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])


def width(n: int, alpha: float) -> float:
    """Return the half-width of the one-sided confidence sequence after `n` values, in standard deviations.

    The free parameter `rho` of the sequence is set for about 100 episodes (arXiv:2103.06476, section B.2).
    """
    rho2 = (-2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA) + 1)) / 100
    scaled = n * rho2 + 1
    return math.sqrt(2 * scaled / (n * n * rho2) * math.log(1 + math.sqrt(scaled) / (2 * alpha)))
