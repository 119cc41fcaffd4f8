"""Outcomes of finished episodes, and scores with confidence intervals. Needs only NumPy and SciPy."""

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
"""Maximum length of an episode whose end must be awaited."""


@dataclass(frozen=True)
class Episode:
    """One finished episode.

    Attributes:
        copy: Index of the environment that played it.
        number: Number of the episode in its environment since the stage began, from 0.
        total_reward: Undiscounted, unnormalised sum of rewards (the return).
        length: Number of environment steps.
        success: Whether it counts as solved, or `None` if the environment does not define success.
        began: Number of steps of its environment, since all environments were reset, at which it began.
        level: Options with which it started, or `None`.
    """

    copy: int
    number: int
    total_reward: float
    length: int
    success: bool | None = None
    began: int = 0
    level: Mapping[str, Any] | None = None


def rows_of(episodes: Iterable[Episode]) -> list[list[Any]]:
    """Return episodes as JSON values for a checkpoint, without the level if it is `None`."""
    rows = ([getattr(episode, field.name) for field in fields(Episode)] for episode in episodes)
    return [row[:-1] if row[-1] is None else [*row[:-1], thaw(row[-1])] for row in rows]


def episodes_of(rows: Iterable[Sequence[Any]]) -> list[Episode]:
    """Return episodes from the result of `rows_of`."""
    return [Episode(*row[:6], *map(freeze, row[6:])) for row in rows]


@serializable
@dataclass(frozen=True)
class Score:
    """The mean outcome of a fixed number of episodes, with 95 % confidence intervals.

    Attributes:
        episodes: Number of episodes.
        steps: Total number of environment steps.
        mean_return: Mean return.
        return_low: Lower end of Student's t interval of the mean return.
        return_high: Upper end of Student's t interval of the mean return.
        success: Share of solved episodes, or `None` if no episode reports success. If some do, the others count as
            unsolved.
        success_low: Lower end of Wilson's interval of the success rate.
        success_high: Upper end of Wilson's interval of the success rate.
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
        episodes: Episodes, at least one.
        confidence: Confidence level of the two-sided intervals.

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
        # Import late, because SciPy takes longer than most commands that need no score.
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, 0.5 + confidence / 2) * returns.std(ddof=1) / np.sqrt(n))
    summary = Score(n, sum(e.length for e in played), mean, mean - half, mean + half)
    if all(e.success is None for e in played):
        return summary
    solved = sum(bool(e.success) for e in played)
    low, high = wilson_interval(solved, n, confidence)
    return Score(n, summary.steps, mean, mean - half, mean + half, solved / n, low, high)


def shown(measure: str, value: float) -> str:
    """Format a mean for sentences: success with two decimals (three if necessary), returns as `.3g`."""
    if measure != "success":
        return f"{value:.3g}"
    return f"{value:.3f}".removesuffix("0")


def values_of(measure: str, episodes: Iterable[Episode]) -> np.ndarray:
    """Return each episode's success (0 or 1) or its return, shape `(n,)`."""
    if measure == "success":
        return np.array([float(bool(episode.success)) for episode in episodes])
    return np.array([episode.total_reward for episode in episodes], dtype=np.float64)


def chance_of_less(low: Sequence[float], high: Sequence[float]) -> float:
    """Return the p-value of Mann and Whitney's one-sided rank test of 'the first values are not lower'.

    It uses the normal approximation with the correction for ties, which is accurate from about five values each.

    Args:
        low: Values that may be lower, at least one.
        high: Values to compare with, at least one.
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
    """Return Wilson's interval of a share (1927), which is accurate for few episodes and for shares near 0 or 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle, half = 2 * solved + z * z, z * math.sqrt(z * z + 4 * solved * (n - solved) / n)
    low, high = ((middle + side) / (2 * (n + z * z)) for side in (-half, half))
    return (low if solved > 0 else 0.0), (high if solved < n else 1.0)
