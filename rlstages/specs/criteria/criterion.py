"""The base class of criteria, which judge episodes and return a verdict.

A mean over recent episodes opens gates by luck: with a true success rate of 0.8, some stretch of 20 episodes passes a
threshold of 0.9 sooner or later. Here the episodes must reject the null hypothesis 'the true value is below threshold
minus margin'. The test is sequential, so it may be evaluated after every episode. It may also be begun again; all
attempts share one error budget (`spend`). The gate decides which episodes are tested (`stages/fine_tuning/gate.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlstages.errors import require
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.criteria.sequential import ALPHA
from rlstages.specs.serialization import serializable

Measure = Literal["success", "return"]
FIRST_ATTEMPT = 0.8


@serializable
@dataclass(frozen=True)
class Verdict:
    """The verdict of a criterion on some episodes.

    Attributes:
        met: Whether the threshold is significantly reached.
        futile: Whether more episodes of this policy would hardly change the answer 'not met'.
        value: Measured mean.
        bound: Lower bound of the true value, valid over all looks together.
        threshold: Threshold of the criterion.
        episodes: Number of judged episodes.
        episodes_needed: Estimated number of further episodes until it is met, or `None` if no number would suffice.
        reason: One sentence for the user.
    """

    met: bool
    futile: bool
    value: float
    bound: float
    threshold: float
    episodes: int
    episodes_needed: int | None
    reason: str


class Criterion(ABC):
    """Judges episodes. Combine two with `&` (both) or `|` (either)."""

    @abstractmethod
    def promising(self, recent: Sequence[Episode]) -> bool:
        """Return whether recent episodes, oldest first, fill a window and justify the cost of a confirmation."""

    @abstractmethod
    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:
        """Test episodes.

        Args:
            episodes: All episodes of this attempt so far, in the order in which they began. The test may be repeated
                whenever one is added.
            alpha: Error probability over all looks: the probability that the criterion is called met although no policy
                that played the episodes has a true value of threshold minus margin or more.
        """

    @abstractmethod
    def holds(self, fresh: Sequence[Episode]) -> bool:
        """Return whether the mean of fresh episodes of the frozen policy is not below threshold minus margin."""

    @property
    @abstractmethod
    def frozen_episodes(self) -> int:
        """Number of fresh episodes that the frozen policy must play after the test of training episodes."""

    @property
    @abstractmethod
    def window(self) -> int:
        """Number of recent training episodes in the window."""

    @property
    @abstractmethod
    def max_episodes(self) -> int:
        """Maximum number of episodes of one confirmation."""

    @property
    @abstractmethod
    def needs_success(self) -> bool:
        """Whether the environment must define success."""

    @property
    def measure(self) -> Measure:
        """The measure of `summary`: success or return. For combined criteria, that of the first."""
        return "success" if self.needs_success else "return"

    @abstractmethod
    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:
        """Return the number of perfect episodes that would meet the criterion, or `None` if no number would."""

    @abstractmethod
    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:
        """Return the mean of recent episodes (NaN if there are none), and the threshold."""

    @abstractmethod
    def progress(self, value: float) -> float:
        """Return the progress of a mean to the threshold: 1 at the threshold, 0 at the worst expected value."""

    def __and__(self, other: Criterion) -> AllOf:
        return AllOf(self, other)

    def __or__(self, other: Criterion) -> AnyOf:
        return AnyOf(self, other)


def spend(attempt: int, alpha: float = ALPHA, first: Sequence[float] = (FIRST_ATTEMPT,)) -> float:
    """Return the share of the error budget for one confirmation.

    Args:
        attempt: Number of the confirmation, from 1.
        alpha: Error budget.
        first: Shares of the first confirmations. The shares of all others add up to the rest. If a confirmation begins
            only after another has failed, most of the budget goes to the first, because most stages need only one.
    """
    if attempt <= len(first):
        return first[attempt - 1] * alpha
    later = attempt - len(first)
    return (1 - sum(first)) * alpha / (later * (later + 1))


@dataclass(frozen=True)
class _Pair(Criterion):
    first: Criterion
    second: Criterion

    def __post_init__(self) -> None:
        for part in (self.first, self.second):
            sentence = f"{type(self).__name__}: {part!r} is not a criterion."
            require(isinstance(part, Criterion), sentence, "setting-type", type(self).__name__, value=part)

    @property
    def window(self) -> int:
        return max(self.first.window, self.second.window)

    @property
    def max_episodes(self) -> int:
        return max(self.first.max_episodes, self.second.max_episodes)

    @property
    def frozen_episodes(self) -> int:
        return max(self.first.frozen_episodes, self.second.frozen_episodes)

    @property
    def needs_success(self) -> bool:
        return self.first.needs_success or self.second.needs_success

    @property
    def measure(self) -> Measure:
        return self.first.measure

    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:
        return self.first.summary(recent)

    def progress(self, value: float) -> float:
        return self.first.progress(value)


@serializable
@dataclass(frozen=True)
class AllOf(_Pair):
    """Both criteria must be met. Each is tested at the full `alpha`, because both err with at most this probability."""

    def __str__(self) -> str:
        return f"{self.first} and {self.second}"

    def promising(self, recent: Sequence[Episode]) -> bool:  # noqa: D102
        return self.first.promising(recent) and self.second.promising(recent)

    def holds(self, fresh: Sequence[Episode]) -> bool:  # noqa: D102
        return self.first.holds(fresh) and self.second.holds(fresh)

    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:  # noqa: D102
        both = [self.first.fewest_episodes(alpha), self.second.fewest_episodes(alpha)]
        return None if None in both else max(n for n in both if n is not None)

    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:  # noqa: D102
        one, two = self.first.judge(episodes, alpha), self.second.judge(episodes, alpha)
        lagging = two if one.met else one
        reason = f"{one.reason}; and {two.reason}"
        return _of(lagging, one.met and two.met, one.futile or two.futile, reason)


@serializable
@dataclass(frozen=True)
class AnyOf(_Pair):
    """At least one of two criteria must be met. Each is tested at half of `alpha`."""

    def __str__(self) -> str:
        return f"{self.first} or {self.second}"

    def promising(self, recent: Sequence[Episode]) -> bool:  # noqa: D102
        return self.first.promising(recent) or self.second.promising(recent)

    def holds(self, fresh: Sequence[Episode]) -> bool:  # noqa: D102
        return self.first.holds(fresh) or self.second.holds(fresh)

    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:  # noqa: D102
        either = [self.first.fewest_episodes(alpha / 2), self.second.fewest_episodes(alpha / 2)]
        return min((n for n in either if n is not None), default=None)

    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:  # noqa: D102
        one, two = self.first.judge(episodes, alpha / 2), self.second.judge(episodes, alpha / 2)
        leading = two if two.met and not one.met else one
        reason = leading.reason if one.met or two.met else f"{one.reason}; or {two.reason}"
        return _of(leading, one.met or two.met, one.futile and two.futile, reason)


def _of(verdict: Verdict, met: bool, futile: bool, reason: str) -> Verdict:
    needed = 0 if met else verdict.episodes_needed
    return Verdict(met, futile, verdict.value, verdict.bound, verdict.threshold, verdict.episodes, needed, reason)
