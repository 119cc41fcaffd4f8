"""Sequential tests of a mean: evidence that may be looked at after every episode.

Evidence is a log wealth, in nats: of starting with 1 and betting against the tested value. If that value is true, the
wealth reaches `1 / alpha` with a probability of at most `alpha`, over all looks together (Ville 1939).

Sources: Wald (1945), Sequential Tests of Statistical Hypotheses; Waudby-Smith and Ramdas (2020), Estimating means of
bounded random variables by betting, arXiv:2010.09686; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021),
Time-uniform central limit theory and asymptotic confidence sequences, arXiv:2103.06476.
"""

from __future__ import annotations

import math

import numpy as np

ALPHA = 0.05


def likelihood_ratio(solved: int, failed: int, null: float, alternative: float) -> float:
    """Return the log likelihood ratio of two shares of solved episodes, `alternative` against `null`, in nats."""
    return solved * math.log(alternative / null) + failed * math.log((1 - alternative) / (1 - null))


def bet(gains: np.ndarray, reach: float) -> float:
    """Return the log wealth, in nats, of starting with 1 and betting on each episode's return.

    The wealth is the mean over several stakes, because the best one depends on the unknown spread; half of it goes to
    the largest.

    Args:
        gains: Returns minus the tested value, shape `(n,)`.
        reach: The largest loss that a stake may meet.
    """
    if reach == 0.0:
        return 0.0
    kept = np.maximum(1 + np.outer(_STAKES, gains / reach), 1e-12)
    wealth = np.log(kept).sum(axis=1)
    most = float(wealth.max())
    return most + math.log(float(_SHARES @ np.exp(wealth - most)))


_STAKES = np.array([0.95, 0.5, 0.25, 0.1, 0.05, 0.02])
_SHARES = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])


def width(n: int, alpha: float) -> float:
    """Return the half-width of the one-sided confidence sequence after `n` values, in standard deviations.

    `rho` is the free parameter of the sequence, set for about 100 episodes (arXiv:2103.06476, section B.2).
    """
    rho2 = (-2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA) + 1)) / 100
    scaled = n * rho2 + 1
    return math.sqrt(2 * scaled / (n * n * rho2) * math.log(1 + math.sqrt(scaled) / (2 * alpha)))
