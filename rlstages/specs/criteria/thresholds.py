"""Thresholds on the success rate or the mean return of a policy's episodes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlstages.errors import Fault, require, require_int, require_number
from rlstages.specs.criteria.criterion import Criterion, Verdict
from rlstages.specs.criteria.episodes import Episode, shown
from rlstages.specs.criteria.sequential import ALPHA, FUTILITY, ShareTest, bet, nearly_always, width
from rlstages.specs.plain import settle
from rlstages.specs.serialization import serializable
from rlstages.specs.unknown import refusing_unknown

ASSUMED_REACH = 1.5
"""Assumed distance of the worst episode below the null value, in thresholds. An example is a lander that crashes with
a return of -100 at a threshold of 200."""
FROZEN_EPISODES = 16
_MARGIN = 0.05


@serializable
@refusing_unknown()
@dataclass(frozen=True)
class SuccessThreshold(Criterion):
    """The criterion that the share of solved episodes reaches a threshold.

    The test (`sequential.ShareTest`) distinguishes `threshold - margin` from `threshold + 0.02`, or from a smaller
    success rate if `threshold + 0.02` is not below 1. Its type I error holds over all looks together. A policy that
    exceeds the threshold by 0.02 passes in nine cases of ten: within 300 episodes at thresholds of 0.9 and above, and
    within 600 below (docs/gates.md).

    Args:
        threshold: Success rate to reach, in (0, 1].
        margin: Largest distance below the threshold at which the gate may open.
        window: Number of recent training episodes in the window. Another confirmation begins if their mean is not below
            threshold minus margin. If the policy acts deterministically, the first one begins if it reaches the
            threshold.
        max_episodes: Maximum number of episodes of one confirmation.
        frozen_episodes: Number of fresh episodes that the frozen policy must play after the test of training episodes.
            The gate opens if their mean is not below threshold minus margin.
    """

    threshold: float
    margin: float = _MARGIN
    window: int = 30
    max_episodes: int = 540
    frozen_episodes: int = FROZEN_EPISODES

    def __post_init__(self) -> None:
        """Refuse thresholds that cannot be reached or decided."""
        settle(self)
        require_number("SuccessThreshold", "threshold", self.threshold, above=0.0, most=1.0)
        require_number("SuccessThreshold", "margin", self.margin, least=0.0, most=0.5)
        require_int("SuccessThreshold", "window", self.window)
        require_int("SuccessThreshold", "max_episodes", self.max_episodes)
        require_int("SuccessThreshold", "frozen_episodes", self.frozen_episodes)
        null = self.threshold - self.margin
        sentence = (
            f"SuccessThreshold: threshold minus margin is {null:g}, which no number of episodes can decide; "
            "it must lie strictly between 0 and 1, so change one of the two."
        )
        require(0.0 < null < 1.0, sentence, "setting-conflict", "SuccessThreshold", "margin")

    def __str__(self) -> str:
        margin = f" (margin {self.margin:g})" if self.margin != _MARGIN else ""
        return f"success of at least {self.threshold:g}{margin}"

    def promising(self, recent: Sequence[Episode]) -> bool:  # noqa: D102
        last = recent[-self.window :]
        return len(last) == self.window and _success(last) >= self.threshold

    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:  # noqa: D102
        return _success(recent[-self.window :]), self.threshold

    @property
    def needs_success(self) -> bool:  # noqa: D102
        return True

    def fewest_episodes(self, alpha: float = ALPHA) -> int | None:  # noqa: D102
        return _episodes_to_pass(self._test(alpha), 1.0, alpha)

    def judge(self, episodes: Sequence[Episode], alpha: float = ALPHA) -> Verdict:  # noqa: D102
        test, goal = self._test(alpha), math.log(1 / alpha)
        judged = episodes[: test.episodes]
        n, solved = len(judged), sum(bool(e.success) for e in judged)
        met = test.evidence(solved, n - solved, test.null) >= goal
        futile = not met and (n == test.episodes or test.is_futile(solved, n - solved))
        value = solved / n if n else math.nan
        expected = _episodes_to_pass(test, value if n else 1.0, alpha)
        needed = 0 if met else None if expected is None else max(1, expected - n)
        bound = _lower_bound(test, solved, n - solved, goal)
        reason = _sentence("success", value, bound, (self.threshold, test.null), n, met, futile, needed)
        return Verdict(met, futile, value, bound, self.threshold, n, needed, reason)

    def holds(self, fresh: Sequence[Episode]) -> bool:  # noqa: D102
        return _success(fresh) >= self.threshold - self.margin

    def progress(self, value: float) -> float:  # noqa: D102
        return value / self.threshold

    def _test(self, alpha: float) -> ShareTest:
        null = self.threshold - self.margin
        return ShareTest.plan(null, min(self.threshold + 0.02, nearly_always(null)), alpha, self.max_episodes)


def _episodes_to_pass(test: ShareTest, share: float, alpha: float) -> int | None:
    """Return the number of episodes after which a policy with exactly this success rate passes, or `None`."""

    def passes(n: int) -> bool:
        solved = round(share * n)
        return test.evidence(solved, n - solved, test.null) >= math.log(1 / alpha)

    if not passes(test.episodes):
        return None
    return bisect_left(range(test.episodes), True, key=passes)


def _lower_bound(test: ShareTest, solved: int, failed: int, goal: float) -> float:
    tiny = 1e-9
    if test.evidence(solved, failed, tiny) < goal:
        return 0.0
    if test.evidence(solved, failed, 1 - tiny) >= goal:
        return 1.0
    return _crossing(lambda null: test.evidence(solved, failed, null), goal, tiny, 1 - tiny)


@serializable
@refusing_unknown()
@dataclass(frozen=True)
class RewardThreshold(Criterion):
    """The criterion that the mean return reaches a threshold.

    The test is a bet against 'the true mean is threshold minus margin'. Its stakes are chosen so that one episode with
    the lowest possible return would lose nearly everything. The type I error holds over all looks together if no
    episode can fall below `worst`; the verdict says so if one fell below the assumption. A test that trusts the
    observed spread would mistake a policy that crashes once in thirty episodes for one that never does.

    Args:
        threshold: Mean return to reach, in the environment's own reward units.
        margin: Largest distance below the threshold at which the gate may open. `None` means 5 % of the threshold's
            absolute value, and at least 5 % of the returns' standard deviation.
        worst: Lowest possible return of an episode. `None` assumes that no episode falls further below threshold minus
            margin than 1.5 times the threshold's absolute value, or than the episodes seen. Set it if failures cost
            more, as in tasks that end early on success (Acrobot: -500). Also set it if they cost less, because fewer
            episodes are needed then (CartPole: 0). A threshold of 0 requires it.
        window: Number of recent training episodes in the window. Another confirmation begins if their mean is not below
            threshold minus margin. If the policy acts deterministically, the first one begins if it reaches the
            threshold.
        min_episodes: Minimum number of episodes of one confirmation.
        max_episodes: Maximum number of episodes of one confirmation.
        frozen_episodes: Number of fresh episodes that the frozen policy must play after the test of training episodes.
            The gate opens if their mean is not below threshold minus margin.
    """

    threshold: float
    margin: float | None = None
    worst: float | None = None
    window: int = 30
    min_episodes: int = 30
    max_episodes: int = 300
    frozen_episodes: int = FROZEN_EPISODES

    def __post_init__(self) -> None:
        """Refuse thresholds that are not finite and limits that contradict each other."""
        settle(self)
        require_number("RewardThreshold", "threshold", self.threshold)
        if self.margin is not None:
            require_number("RewardThreshold", "margin", self.margin, least=0.0)
        scale = self.threshold != 0 or self.margin is not None
        sentence = "RewardThreshold: 5 % of the threshold 0 is no margin; give margin=... in units of reward."
        require(scale, sentence, "setting-missing", "RewardThreshold", "margin")
        if self.worst is None:
            deep = "a threshold of 0 does not say how deep an episode can fall; give worst=..., its lowest return"
            require(
                self.threshold != 0, f"RewardThreshold: {deep}.", "setting-conflict", "RewardThreshold", "threshold"
            )
        else:
            require_number("RewardThreshold", "worst", self.worst)
            above = self.threshold - (self.margin or 0.0) > self.worst
            sentence = f"RewardThreshold: worst is {self.worst:g}, not below threshold minus margin."
            require(above, sentence, "setting-conflict", "RewardThreshold", "worst")
        require_int("RewardThreshold", "window", self.window)
        require_int("RewardThreshold", "min_episodes", self.min_episodes, least=10)
        require_int("RewardThreshold", "max_episodes", self.max_episodes, least=self.min_episodes)
        require_int("RewardThreshold", "frozen_episodes", self.frozen_episodes)

    def __str__(self) -> str:
        margin = f" (margin {self.margin:g})" if self.margin is not None else ""
        return f"a mean return of at least {self.threshold:g}{margin}"

    def promising(self, recent: Sequence[Episode]) -> bool:  # noqa: D102
        last = recent[-self.window :]
        return len(last) == self.window and _mean_return(last) >= self.threshold

    def summary(self, recent: Sequence[Episode]) -> tuple[float, float]:  # noqa: D102
        return _mean_return(recent[-self.window :]), self.threshold

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
        null, goal = self._null(spread), math.log(1 / alpha)
        reach = self._reach(returns - null, null)
        evidence, enough = bet(returns - null, reach), n >= self.min_episodes
        met = enough and evidence >= goal
        # The same significance as for passing, so that a policy at its null value does not use up the stage's steps.
        hopeless = enough and mean + spread * width(n, FUTILITY) < self.threshold
        futile = not met and (hopeless or n == self.max_episodes)
        bound = self._lower_bound(returns, mean, reach, goal) if enough else -math.inf
        needed: int | None = max(0, self.min_episodes - n)
        if not met and n and evidence < goal:
            needed = max(self.min_episodes - n, math.ceil((goal - evidence) * n / evidence)) if evidence > 0 else None
        reason = _sentence("return", mean, bound, (self.threshold, null), n, met, futile, needed)
        lowest = null - self._assumed_reach(null)
        if n and returns.min() < lowest:
            reason += f" (an episode returned {returns.min():.3g}, below the {lowest:.3g} assumed; set worst=...)"
        return Verdict(met, futile, mean, bound, self.threshold, n, needed, reason)

    def holds(self, fresh: Sequence[Episode]) -> bool:  # noqa: D102
        returns = _returns(fresh)
        return float(returns.mean()) >= self._null(float(returns.std()))

    def progress(self, value: float) -> float:  # noqa: D102
        return 1 - (self.threshold - value) / self._assumed_reach(self.threshold)

    def _null(self, spread: float) -> float:
        """Return threshold minus margin for returns with the standard deviation `spread`."""
        return self.threshold - (0.05 * max(abs(self.threshold), spread) if self.margin is None else self.margin)

    def _reach(self, gains: np.ndarray, null: float) -> float:
        """Return the largest assumed distance of an episode below the tested value."""
        return max(self._assumed_reach(null), float(np.abs(gains).max(initial=0.0)))

    def _assumed_reach(self, null: float) -> float:
        return ASSUMED_REACH * abs(self.threshold) if self.worst is None else null - self.worst

    def _lower_bound(self, returns: np.ndarray, mean: float, reach: float, goal: float) -> float:
        lowest = mean - 10 * reach
        if bet(returns - lowest, reach) < goal:
            return -math.inf
        return _crossing(lambda null: bet(returns - null, reach), goal, lowest, mean)


def _crossing(evidence: Callable[[float], float], goal: float, low: float, high: float) -> float:
    """Return, by bisection, the point between `low` and `high` at which falling evidence crosses a goal."""
    for _ in range(40):
        middle = (low + high) / 2
        if evidence(middle) >= goal:
            low = middle
        else:
            high = middle
    return low


def _success(episodes: Sequence[Episode]) -> float:
    return sum(bool(e.success) for e in episodes) / len(episodes) if episodes else math.nan


def _mean_return(episodes: Sequence[Episode]) -> float:
    return sum(_returns(episodes).tolist()) / len(episodes) if episodes else math.nan


def _returns(episodes: Sequence[Episode]) -> np.ndarray:
    """Return the episodes' returns, and refuse values that are not finite.

    Raises:
        Fault: If a return is not finite.
    """
    for episode in episodes:
        if not math.isfinite(episode.total_reward):
            sentence = (
                f"RewardThreshold: the return of copy {episode.copy}'s episode {episode.number} is "
                f"{episode.total_reward}, which cannot be compared with a threshold."
            )
            raise Fault(sentence, "environment-failed", "RewardThreshold")
    return np.array([episode.total_reward for episode in episodes], dtype=np.float64)


def _sentence(
    what: str,
    value: float,
    bound: float,
    asked: tuple[float, float],
    n: int,
    met: bool,
    futile: bool,
    needed: int | None,
) -> str:
    """Return a sentence on the result of episodes, the threshold, and threshold minus margin."""
    if n == 0:
        return f"no episode judged yet; at least {needed} needed"
    threshold, null = (shown(what, each) for each in asked)
    measured = f"{what} {shown(what, value)} over {n} episodes"
    if math.isfinite(bound):
        measured += f", at least {shown(what, bound)} beyond luck"
    wanted = f"{null} is needed" + (f" ({threshold} less the margin)" if null != threshold else "")
    if met or futile:
        return f"{measured}; {wanted}" if met else f"{measured}, but {wanted}"
    more = f"about {needed} more episodes would show it" if needed is not None else "only a better policy would show it"
    return f"{measured}; {wanted}: {more}"
