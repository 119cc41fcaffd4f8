"""What finished episodes say: their outcomes, and a score with intervals. NumPy and SciPy only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np

from rlstages.specs.plain import freeze, thaw
from rlstages.specs.serialization import serializable

MAX_EPISODE_STEPS = 100_000
"""Where a whole episode is waited for, it has this many steps to end."""


@dataclass(frozen=True)
class Episode:
    """One finished episode.

    Attributes:
        copy: Which copy of the environment played it.
        number: Its number in that copy since the stage began, from 0.
        total_reward: Sum of rewards, not discounted, not normalised (the return).
        length: Environment steps.
        success: Whether it counts as solved, or `None` where the environment defines no success.
        began: Steps that its copy had taken since all copies were reset, when it began.
        level: The options that it was started with, or `None` without any.
    """

    copy: int
    number: int
    total_reward: float
    length: int
    success: bool | None = None
    began: int = 0
    level: Mapping[str, Any] | None = None


def rows_of(episodes: Iterable[Episode]) -> list[list[Any]]:
    """Return episodes as JSON values, for a checkpoint; a level only where there is one."""
    rows = ([getattr(episode, field.name) for field in fields(Episode)] for episode in episodes)
    return [row[:-1] if row[-1] is None else [*row[:-1], thaw(row[-1])] for row in rows]


def episodes_of(rows: Iterable[Sequence[Any]]) -> list[Episode]:
    """Return the episodes that `rows_of` was given."""
    return [Episode(*row[:6], *map(freeze, row[6:])) for row in rows]


@serializable
@dataclass(frozen=True)
class Score:
    """Mean outcome of a set of episodes, with 95 % intervals for a fixed number of episodes.

    Attributes:
        episodes: How many.
        steps: Environment steps they took in all.
        mean_return: Mean return.
        return_low: Lower end of the t interval of the mean return.
        return_high: Upper end.
        success: Share solved, or `None` where no episode tells; where some do, the others count as not solved.
        success_low: Lower end of the Wilson interval.
        success_high: Upper end.
    """

    episodes: int
    steps: int
    mean_return: float
    return_low: float
    return_high: float
    success: float | None = None
    success_low: float | None = None
    success_high: float | None = None

    def __str__(self) -> str:
        text = f"return {self.mean_return:.4g} [{self.return_low:.4g}, {self.return_high:.4g}]"
        if self.success is not None:
            text = f"success {self.success:.2f} [{self.success_low:.2f}, {self.success_high:.2f}], {text}"
        return f"{text} over {self.episodes} episodes"


def score(episodes: Iterable[Episode], confidence: float = 0.95) -> Score:
    """Summarise episodes.

    Args:
        episodes: At least one.
        confidence: Of the two-sided intervals: Student's t for the return, Wilson's for success.

    Raises:
        ValueError: If there is no episode.
    """
    played = list(episodes)
    if not played:
        raise ValueError("a score needs at least one episode")
    returns = np.array([e.total_reward for e in played], dtype=np.float64)
    n, mean = len(returns), float(returns.mean())
    half = 0.0
    if n > 1:
        # SciPy takes longer to import than most commands take that score nothing.
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, 0.5 + confidence / 2) * returns.std(ddof=1) / np.sqrt(n))
    summary = Score(n, sum(e.length for e in played), mean, mean - half, mean + half)
    if all(e.success is None for e in played):
        return summary
    solved = sum(bool(e.success) for e in played)
    low, high = wilson_interval(solved, n, confidence)
    return Score(n, summary.steps, mean, mean - half, mean + half, solved / n, low, high)


def shown(measure: str, value: float) -> str:
    """Return a mean as sentences show it: shares with two decimals, a third if it says more, and returns as `.3g`."""
    if measure != "success":
        return f"{value:.3g}"
    return f"{value:.3f}".removesuffix("0")


def values_of(measure: str, episodes: Iterable[Episode]) -> np.ndarray:
    """Return each episode's success, as 0 or 1, or its return; shape `(n,)`."""
    if measure == "success":
        return np.array([float(bool(episode.success)) for episode in episodes])
    return np.array([episode.total_reward for episode in episodes], dtype=np.float64)


def chance_of_less(low: Sequence[float], high: Sequence[float]) -> float:
    """Return the p-value of 'the first are not lower': Mann and Whitney's rank test, one-sided.

    By the normal approximation with the correction for ties, which is good from about five values each.

    Args:
        low: Values that may be lower, at least one.
        high: Those that they are compared with, at least one.
    """
    both = np.concatenate([np.asarray(low, np.float64), np.asarray(high, np.float64)])
    _, places, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    n, m = len(low), len(high)
    surplus = float(ranks[:n].sum()) - n * (n + m + 1) / 2
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / ((n + m) * (n + m - 1))
    spread = math.sqrt(max(0.0, n * m / 12 * (n + m + 1 - ties)))
    return NormalDist().cdf((surplus + 0.5) / spread) if spread > 0 else 1.0


def wilson_interval(solved: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a share (1927), which keeps its level for few episodes and for shares near 0 or 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle, half = 2 * solved + z * z, z * math.sqrt(z * z + 4 * solved * (n - solved) / n)
    low, high = ((middle + side) / (2 * (n + z * z)) for side in (-half, half))
    return (low if solved > 0 else 0.0), (high if solved < n else 1.0)
