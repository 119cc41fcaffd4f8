"""What decides that a stage is done: a criterion judges episodes and returns a verdict.

A window of recent episodes opens gates by luck (a lucky stretch of 20 episodes passes a 0.9 threshold at a true
success of 0.8 sooner or later, every time). Here episodes have to reject 'the true value is below threshold minus
margin'. That test may be looked at after every episode (it is a sequential test), and may be begun again later: the
attempts share the error budget (`spend`). Which episodes these are is the gate's affair (`stages/fine_tuning/gate.py`).
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
    """What a criterion says of some episodes.

    Attributes:
        met: The threshold is reached, beyond luck.
        futile: More episodes of this policy would hardly change the answer 'not met'.
        value: The measured mean.
        bound: Lower bound of the true value that holds at all looks together.
        threshold: What was asked for.
        episodes: Episodes judged.
        episodes_needed: Estimate of the further episodes needed if they go on like these; `None` if no number would do.
        reason: One sentence for a person.
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
        """Say whether recent episodes, oldest first, make a confirmation worth its cost: a whole window of them."""

    @abstractmethod
    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:
        """Test episodes, in the order in which they were started.

        Args:
            episodes: All episodes of this attempt so far; the test may be repeated whenever one is added.
            alpha: Probability, over all looks, of calling the criterion met when no policy that played them has a true
                value of threshold minus margin or more.
        """

    @abstractmethod
    def holds(self, fresh: Sequence[Episode]) -> bool:
        """Say whether some fresh episodes of the frozen policy, at least one, are not below threshold minus margin."""

    @property
    @abstractmethod
    def frozen_episodes(self) -> int:
        """How many fresh episodes the policy that leaves must play as it is, once training episodes have decided."""

    @property
    @abstractmethod
    def window(self) -> int:
        """How many recent training episodes are looked at."""

    @property
    @abstractmethod
    def max_episodes(self) -> int:
        """How many episodes one confirmation may take."""

    @property
    @abstractmethod
    def needs_success(self) -> bool:
        """Whether the environment must define success."""

    @property
    def measure(self) -> Measure:
        """What `summary` is about; of two combined criteria, what the first looks at."""
        return "success" if self.needs_success else "return"

    @abstractmethod
    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:
        """Return the number of perfect episodes that would meet it, or `None` if none would."""

    @abstractmethod
    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:
        """Return the mean of recent episodes (NaN when there are none) and the threshold it is measured against."""

    @abstractmethod
    def progress(self, value: float) -> float:
        """Return how far a mean has come to the threshold: 1 is there, 0 the worst that is expected."""

    def __and__(self, other: Criterion) -> AllOf:
        return AllOf(self, other)

    def __or__(self, other: Criterion) -> AnyOf:
        return AnyOf(self, other)


def spend(attempt: int, alpha: float = ALPHA, first: Sequence[float] = (FIRST_ATTEMPT,)) -> float:
    """Return the share of the error budget for the confirmation with this number (from 1).

    Args:
        attempt: The number.
        alpha: The budget.
        first: Shares of it that the first confirmations have; those of all others add up to the rest. Where one is
            begun only after another has failed, most goes to the first, which is the last in most stages.
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
    """Both criteria are met. Each is tested at the full `alpha`: the chance that both err is no greater."""

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
    """Either criterion is met. Each is tested at half of `alpha`."""

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
