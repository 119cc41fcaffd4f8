"""When a stage is done: thresholds, and the sequential tests that decide whether they are really met.

A window of recent episodes opens gates by luck (a lucky stretch of 20 episodes passes a 0.9 threshold at a true
success of 0.8 sooner or later, every time). Here two things must happen: the recent training episodes look
`promising`, and then fresh episodes of the *frozen* policy reject 'the true value is below threshold minus margin'.
That test may be looked at after every episode (it is a sequential test), and may be begun again later: attempt `k`
spends `alpha / (k (k + 1))` of the error budget, which adds up to `alpha` over any number of attempts.

The tests themselves, and where they come from, are in `sequential.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from rlstages.episodes import Episode
from rlstages.errors import Fault, require, require_int, require_number
from rlstages.sequential import ALPHA, bet, likelihood_ratio, width
from rlstages.serialization import serializable

FUTILITY = 0.05


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
        """Say whether recent training episodes, oldest first, make a confirmation worth its cost."""

    @abstractmethod
    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:
        """Test fresh episodes of a frozen policy, in the order in which they were started.

        Args:
            episodes: All episodes of this attempt so far; the test may be repeated whenever one is added.
            alpha: Probability, over all looks, of calling the criterion met when the true value is below threshold
                minus margin.
        """

    @property
    @abstractmethod
    def window(self) -> int:
        """How many recent training episodes `promising` needs."""

    @property
    @abstractmethod
    def max_episodes(self) -> int:
        """How many episodes one confirmation may take."""

    @property
    @abstractmethod
    def needs_success(self) -> bool:
        """Whether the environment must define success."""

    @abstractmethod
    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:
        """Return the number of perfect episodes that would meet it, or `None` if none would."""

    @abstractmethod
    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:
        """Return the mean of recent episodes (NaN when there are none) and the threshold it is measured against."""

    def __and__(self, other: Criterion) -> AllOf:
        return AllOf(self, other)

    def __or__(self, other: Criterion) -> AnyOf:
        return AnyOf(self, other)


def spend(attempt: int, alpha: float = ALPHA) -> float:
    """Return the share of the error budget for the confirmation with this number (from 1)."""
    return alpha / (attempt * (attempt + 1))


@serializable
@dataclass(frozen=True)
class SuccessThreshold(Criterion):
    """The share of solved episodes reaches a threshold.

    The test is Wald's probability ratio for `threshold - margin` against `threshold + 0.02` (nearer when there is no
    room below 1), whose type I error holds at all looks together.

    Args:
        threshold: In (0, 1].
        margin: The gate may open when the true share is within this below the threshold.
        window: Recent training episodes whose mean must reach the threshold before a confirmation starts.
        max_episodes: The most episodes one confirmation may take.
    """

    threshold: float
    margin: float = 0.05
    window: int = 50
    max_episodes: int = 300

    def __post_init__(self) -> None:
        """Refuse thresholds that cannot be reached or decided."""
        require_number("SuccessThreshold", "threshold", self.threshold, above=0.0, most=1.0)
        require_number("SuccessThreshold", "margin", self.margin, least=0.0, most=0.5)
        require_int("SuccessThreshold", "window", self.window)
        require_int("SuccessThreshold", "max_episodes", self.max_episodes)
        null = self.threshold - self.margin
        require(
            0.0 < null < 1.0,
            f"SuccessThreshold: threshold minus margin is {null:g}, which no number of episodes can decide; "
            "it must lie strictly between 0 and 1, so change one of the two.",
        )

    def __str__(self) -> str:
        return f"success of at least {self.threshold:g}"

    def promising(self, recent: Sequence[Episode]) -> bool:  # noqa: D102
        last = recent[-self.window :]
        return len(last) == self.window and self.summary(last)[0] >= self.threshold

    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:  # noqa: D102
        last = recent[-self.window :]
        return (sum(bool(e.success) for e in last) / len(last) if last else math.nan), self.threshold

    @property
    def needs_success(self) -> bool:  # noqa: D102
        return True

    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:  # noqa: D102
        gain = self._evidence(1, 0, self.threshold - self.margin)
        needed = math.ceil(math.log(1 / alpha) / gain)
        return needed if needed <= self.max_episodes else None

    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:  # noqa: D102
        judged = episodes[: self.max_episodes]
        n, solved = len(judged), sum(bool(e.success) for e in judged)
        null, goal = self.threshold - self.margin, math.log(1 / alpha)
        evidence = self._evidence(solved, n - solved, null)
        met = evidence >= goal
        futile = not met and (evidence <= math.log(FUTILITY) or n == self.max_episodes)
        value = solved / n if n else math.nan
        drift = evidence / n if n else self._evidence(1, 0, null)
        needed = 0 if met else math.ceil((goal - evidence) / drift) if drift > 0 else None
        bound = self._lower_bound(solved, n - solved, goal)
        reason = _sentence("success", value, bound, null, n, met, futile, needed)
        return Verdict(met, futile, value, bound, self.threshold, n, needed, reason)

    def _evidence(self, solved: int, failed: int, null: float) -> float:
        """Return the log likelihood ratio against `null`, in nats; it falls as `null` rises."""
        alternative = min(null + self.margin + 0.02, (1 + null) / 2)
        return likelihood_ratio(solved, failed, null, alternative)

    def _lower_bound(self, solved: int, failed: int, goal: float) -> float:
        tiny = 1e-9
        if self._evidence(solved, failed, tiny) < goal:
            return 0.0
        if self._evidence(solved, failed, 1 - tiny) >= goal:
            return 1.0
        return float(brentq(lambda null: self._evidence(solved, failed, null) - goal, tiny, 1 - tiny))


@serializable
@dataclass(frozen=True)
class RewardThreshold(Criterion):
    """The mean return of an episode reaches a threshold.

    The test is a bet against 'the true mean is threshold minus margin', whose stakes are such that one episode at the
    lowest possible return would lose nearly all. Its type I error holds at all looks together. A test that trusts the
    spread of the returns seen would take a policy that crashes once in thirty episodes for one that never does.

    Args:
        threshold: In the environment's own reward units.
        margin: The gate may open when the true mean is within this below the threshold. `None` stands for 5 % of the
            threshold's size, and at least 5 % of the returns' standard deviation.
        worst: The lowest return an episode can have. `None` assumes that no episode falls further below threshold
            minus margin than the threshold's size, or than the episodes seen; give it where failing costs more, as
            in tasks that end early on success (Acrobot: -500).
        window: Recent training episodes whose mean must reach the threshold before a confirmation starts.
        min_episodes: The fewest episodes a confirmation takes.
        max_episodes: The most.
    """

    threshold: float
    margin: float | None = None
    worst: float | None = None
    window: int = 30
    min_episodes: int = 30
    max_episodes: int = 300

    def __post_init__(self) -> None:
        """Refuse thresholds that are not finite and limits that contradict each other."""
        require_number("RewardThreshold", "threshold", self.threshold)
        if self.margin is not None:
            require_number("RewardThreshold", "margin", self.margin, least=0.0)
        scale = self.threshold != 0 or self.margin is not None
        require(scale, "RewardThreshold: 5 % of the threshold 0 is no margin; give margin=... in units of reward.")
        if self.worst is not None:
            require_number("RewardThreshold", "worst", self.worst)
            above = self.threshold - (self.margin or 0.0) > self.worst
            require(above, f"RewardThreshold: worst is {self.worst:g}, not below threshold minus margin.")
        require_int("RewardThreshold", "window", self.window)
        require_int("RewardThreshold", "min_episodes", self.min_episodes, least=10)
        require_int("RewardThreshold", "max_episodes", self.max_episodes, least=self.min_episodes)

    def __str__(self) -> str:
        return f"a mean return of at least {self.threshold:g}"

    def promising(self, recent: Sequence[Episode]) -> bool:  # noqa: D102
        last = recent[-self.window :]
        return len(last) == self.window and self.summary(last)[0] >= self.threshold

    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:  # noqa: D102
        last = _returns(recent[-self.window :])
        return (sum(last.tolist()) / len(last) if len(last) else math.nan), self.threshold

    @property
    def needs_success(self) -> bool:  # noqa: D102
        return False

    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:  # noqa: D102
        return self.min_episodes

    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:  # noqa: D102
        returns = _returns(episodes[: self.max_episodes])
        n = len(returns)
        mean = float(returns.mean()) if n else math.nan
        spread = float(returns.std(ddof=1)) if n > 1 else 0.0
        below = self.margin if self.margin is not None else 0.05 * max(abs(self.threshold), spread)
        null, goal = self.threshold - below, math.log(1 / alpha)
        reach = self._reach(returns - null, null)
        evidence, enough = bet(returns - null, reach), n >= self.min_episodes
        met = enough and evidence >= goal
        hopeless = enough and mean + spread * width(n, FUTILITY) < null + below / 2
        futile = not met and (hopeless or n == self.max_episodes)
        bound = self._lower_bound(returns, mean, reach, goal) if enough else -math.inf
        needed: int | None = max(0, self.min_episodes - n)
        if not met and n and evidence < goal:
            needed = max(self.min_episodes - n, math.ceil((goal - evidence) * n / evidence)) if evidence > 0 else None
        reason = _sentence("return", mean, bound, null, n, met, futile, needed)
        return Verdict(met, futile, mean, bound, self.threshold, n, needed, reason)

    def _reach(self, gains: np.ndarray, null: float) -> float:
        """Return how far below the tested value an episode may fall."""
        assumed = abs(self.threshold) if self.worst is None else null - self.worst
        return max(assumed, float(np.abs(gains).max(initial=0.0)))

    def _lower_bound(self, returns: np.ndarray, mean: float, reach: float, goal: float) -> float:
        lowest = mean - 10 * reach
        if bet(returns - lowest, reach) < goal:
            return -math.inf
        return float(brentq(lambda null: bet(returns - null, reach) - goal, lowest, mean, xtol=1e-6 * reach))


def _returns(episodes: Sequence[Episode]) -> np.ndarray:
    """Return the episodes' returns, and refuse what no threshold can be compared with.

    Raises:
        Fault: If a return is not finite.
    """
    for episode in episodes:
        if not math.isfinite(episode.total_reward):
            raise Fault(
                f"RewardThreshold: the return of copy {episode.copy}'s episode {episode.number} is "
                f"{episode.total_reward}, which cannot be compared with a threshold."
            )
    return np.array([episode.total_reward for episode in episodes], dtype=np.float64)


def _sentence(
    what: str, value: float, bound: float, null: float, n: int, met: bool, futile: bool, needed: int | None
) -> str:
    if n == 0:
        return f"no episode judged yet; at least {needed} needed"
    measured = f"{what} {value:.3g} over {n} episodes"
    if math.isfinite(bound):
        measured += f", at least {bound:.3g} beyond luck"
    if met:
        return f"{measured}, {null:.3g} needed"
    if futile:
        return f"{measured}, but {null:.3g} is needed"
    more = f"about {needed} more episodes" if needed is not None else "a better policy"
    return f"{measured}, {null:.3g} needed: {more}"


@dataclass(frozen=True)
class _Pair(Criterion):
    first: Criterion
    second: Criterion

    def __post_init__(self) -> None:
        for part in (self.first, self.second):
            require(isinstance(part, Criterion), f"{type(self).__name__}: {part!r} is not a criterion.")

    @property
    def window(self) -> int:
        return max(self.first.window, self.second.window)

    @property
    def max_episodes(self) -> int:
        return max(self.first.max_episodes, self.second.max_episodes)

    @property
    def needs_success(self) -> bool:
        return self.first.needs_success or self.second.needs_success

    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:
        return self.first.summary(recent)


@serializable
@dataclass(frozen=True)
class AllOf(_Pair):
    """Both criteria are met. Each is tested at the full `alpha`: the chance that both err is no greater."""

    def __str__(self) -> str:
        return f"{self.first} and {self.second}"

    def promising(self, recent: Sequence[Episode]) -> bool:  # noqa: D102
        return self.first.promising(recent) and self.second.promising(recent)

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
