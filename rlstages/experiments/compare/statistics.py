"""Few runs, honestly summarised: Agarwal et al. 2021 (arXiv:2108.13264), with SciPy's estimators.

A comparison has one task, so the strata of the bootstrap are the arms: each is resampled by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
PERMUTATIONS = 20_000
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval (percentile); the ends are `None` where there is a single run.

    Attributes:
        value: Estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class StepsTo:
    """Steps until a threshold, over runs of which some never reach it.

    Attributes:
        reached: Runs that reached it.
        runs: All runs.
        median: Kaplan-Meier median, or `None` if fewer than half reach it.
        mean: Restricted mean: the mean of the steps spent until it is reached or training ends, in steps.
    """

    reached: int
    runs: int
    median: float | None
    mean: float


def iqm(values: Any, axis: int = -1) -> Any:
    """Return the interquartile mean: of what is left when the lowest and the highest quarter are cut off.

    Of fewer than four runs nothing is cut, so it is their plain mean.
    """
    return _stats().trim_mean(values, 0.25, axis=axis)


def estimate(runs: Sequence[float]) -> Estimate:
    """Return the interquartile mean of runs with its interval."""
    return _bootstrapped((np.asarray(runs, dtype=float),), lambda a, axis: iqm(a, axis))


def difference(runs: Sequence[float], others: Sequence[float]) -> Estimate:
    """Return by how much the interquartile mean of `runs` is above that of `others`."""
    both = np.asarray(runs, dtype=float), np.asarray(others, dtype=float)
    return _bootstrapped(both, lambda a, b, axis: iqm(a, axis) - iqm(b, axis))


def improvement(runs: Sequence[float], others: Sequence[float]) -> Estimate:
    """Return the probability that a run of `runs` scores higher than one of `others`, ties counted half."""
    return _bootstrapped((np.asarray(runs, dtype=float), np.asarray(others, dtype=float)), _wins)


def chance_above(runs: Sequence[float], others: Sequence[float]) -> float:
    """Return the same probability without its interval."""
    return float(_wins(np.asarray(runs, dtype=float), np.asarray(others, dtype=float), axis=-1))


def _wins(a: np.ndarray, b: np.ndarray, axis: int) -> Any:
    """Mann-Whitney's U over the number of pairs; `axis` is the last one."""
    left, right = a[..., :, None], b[..., None, :]
    return ((left > right) + 0.5 * (left == right)).mean(axis=(-2, -1))


def permutation_p(runs: Sequence[float], others: Sequence[float]) -> float:
    """Return the two-sided p of a permutation test that both arms are alike, by the probability of improvement.

    It is exact for few runs, ties included; 1 where an arm has a single run. A test on interquartile means would not
    see the runs that they cut off.
    """
    both = np.asarray(runs, dtype=float), np.asarray(others, dtype=float)
    if min(map(len, both)) < 2:
        return 1.0
    tested = _stats().permutation_test(
        both,
        _wins,
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=1_000,
        random_state=np.random.default_rng(_SEED),
    )
    return float(tested.pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979)."""
    order = np.argsort(ps)
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected


def seeds_needed(rivals: int, alpha: float = 1 - CONFIDENCE) -> int:
    """Return how many seeds an arm needs to be told apart from all rivals even if no two runs overlap."""
    seeds = 2
    while rivals * 2 / math.comb(2 * seeds, seeds) > alpha:
        seeds += 1
    return seeds


def band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return the interquartile mean of curves at every point, and its interval; whole runs are resampled.

    Args:
        curves: Shape `(runs, points)`.
    """
    middle = iqm(curves, axis=0)
    if len(curves) < 2:
        return middle, None, None
    found = _bootstrap((curves,), lambda a, axis: iqm(a, axis), axis=0)
    return middle, found.low, found.high


def profile(runs: Sequence[float], levels: Sequence[float]) -> list[float]:
    """Return the share of runs that score above each level: the performance profile."""
    return [float(share) for share in _stats().ecdf(runs).sf.evaluate(levels)]


def steps_to(spent: Sequence[float], reached: Sequence[bool]) -> StepsTo:
    """Summarise steps to a threshold, with runs that do not reach it as censored.

    Args:
        spent: For each run, the steps until the threshold, or until its end.
        reached: Whether it was reached then.
    """
    if not any(reached):
        return StepsTo(0, len(spent), None, float(np.mean(spent)))
    survival = _stats().ecdf(_censored(spent, reached)).sf
    under_half = survival.quantiles[survival.probabilities <= 0.5]
    median = float(under_half[0]) if len(under_half) else None
    # The area under the survival function, up to the end of the longest run.
    times = np.concatenate([[0.0], survival.quantiles, [max(spent)]])
    alive = np.concatenate([[1.0], survival.probabilities])
    return StepsTo(sum(reached), len(spent), median, float(np.diff(times) @ alive))


def _censored(spent: Sequence[float], reached: Sequence[bool]) -> Any:
    pairs = list(zip(spent, reached, strict=True))
    return _stats().CensoredData(
        uncensored=[t for t, done in pairs if done], right=[t for t, done in pairs if not done]
    )


@dataclass(frozen=True)
class _Interval:
    low: Any
    high: Any


def _bootstrapped(samples: tuple[np.ndarray, ...], statistic: Callable[..., Any]) -> Estimate:
    value = float(statistic(*samples, axis=-1))
    if min(map(len, samples)) < 2:
        return Estimate(value)
    found = _bootstrap(samples, statistic, axis=-1)
    return Estimate(value, float(found.low), float(found.high))


def _bootstrap(samples: tuple[np.ndarray, ...], statistic: Callable[..., Any], axis: int) -> _Interval:
    found = _stats().bootstrap(
        samples,
        statistic,
        axis=axis,
        n_resamples=RESAMPLES,
        batch=1_000,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        random_state=np.random.default_rng(_SEED),
    )
    return _Interval(found.confidence_interval.low, found.confidence_interval.high)


def _stats() -> Any:
    """Return `scipy.stats`, which takes a second to import and which no run of a comparison needs."""
    from scipy import stats

    return stats
