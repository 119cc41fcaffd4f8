"""Warnings about what is allowed but hardly intended: weak experts, weak clones, rewards that contradict success.

Each function returns sentences for the user. A sentence that occurs in the preflight and again in the run is shown
once: the part before `FIRST` is the same both times.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlstages.demonstrations.episodes import Demonstration
from rlstages.environments.reports import FIRST
from rlstages.environments.success import HELD_BEFORE, info_key
from rlstages.specs.criteria import Criterion, RewardThreshold, SuccessThreshold
from rlstages.specs.criteria.episodes import Episode, Score, chance_of_less, score
from rlstages.specs.environment import Environment

LEAST = 5
"""Minimum number of an expert's episodes, and of random episodes, for a warning."""
LEAST_OF_EACH = 8
"""Minimum number of solved and of unsolved episodes for a comparison of their returns."""
ABLE = 0.9
"""Success rate above which an expert is never called weak."""
DOUBT_LEVEL, STRICT_LEVEL = 0.05, 0.001
FALLING = 0.02
"""Relative fall of the validation loss over the last epochs above which it counts as still falling."""


def doubts_about_expert(
    name: str,
    environment: Environment,
    shown: Sequence[Demonstration],
    chance: Sequence[Episode] = (),
    gate: Criterion | None = None,
    remedy: str = "",
) -> list[str]:
    """Return reasons why cloning these demonstrations will hardly help.

    Args:
        name: Name of the expert or of the file.
        environment: Environment of the demonstrations.
        shown: Complete demonstrated episodes.
        chance: Episodes of random actions in the environment.
        gate: Criterion of the clone, or of the next stage in the same environment.
        remedy: Another possible cause for this kind of expert, as half a sentence.
    """
    if len(shown) < LEAST:
        return []
    episodes = [Episode(0, i, e.total_reward, len(e), e.success) for i, e in enumerate(shown)]
    result = score(episodes)
    hint = remedy or "see whether the expert is given what it was made for"
    if result.success is not None and not remedy:
        hint = "see what Environment(success=...) asks for, and whether the expert is given what it was made for"
    early = sum(episode.solved_before for episode in shown)
    if early:
        hint = f"{HELD_BEFORE.format(key=info_key(environment.success))}, as {early} of them would then"
    if result.success == 0.0:
        return [f"{name} solves no episode of {environment}; {hint}{FIRST}0 of {len(shown)} episodes)."]
    doubts = []
    short = _short_of(result, gate)
    if short is not None:
        doubts.append(f"{name} does not reach the next gate, {gate}; {hint}{FIRST}{short} over {len(shown)} episodes).")
    if len(chance) >= LEAST and not (result.success or 0.0) >= ABLE:
        told = result.success is not None
        ours, random = ([_value(episode, told) for episode in some] for some in (episodes, chance))
        if chance_of_less(random, ours) >= DOUBT_LEVEL:
            means = f"{sum(ours) / len(ours):.3g} against {sum(random) / len(random):.3g}"
            measure = "success" if told else "return"
            level = f"{name} is not better than random actions in {environment} beyond luck"
            doubts.append(f"{level}; {hint}{FIRST}{measure} {means}).")
    return doubts


def doubts_about_reward(
    environment: Environment, episodes: Sequence[Episode], level: float = DOUBT_LEVEL / 5
) -> list[str]:
    """Return a warning if solved episodes have significantly lower returns than unsolved ones.

    Args:
        environment: Environment of the episodes.
        episodes: Episodes of any policy or expert.
        level: Significance level.
    """
    solved = [e.total_reward for e in episodes if e.success]
    others = [e.total_reward for e in episodes if e.success is not None and not e.success]
    if min(len(solved), len(others)) < LEAST_OF_EACH or chance_of_less(solved, others) >= level:
        return []
    means = f"a mean return of {sum(solved) / len(solved):.4g} against {sum(others) / len(others):.4g}"
    return [
        f"Solved episodes of {environment} bring less return than unsolved ones, so reinforcement learning may unlearn "
        f"the task; look at the reward, or at when an episode ends{FIRST}{means})."
    ]


def doubts_about_clone(before: Score | None, after: Score, expert: Score, losses: Sequence[float]) -> list[str]:
    """Return a warning if a clone is far below its expert, and what to try next.

    Args:
        before: Score of the policy before cloning, or `None`.
        after: Score of the clone.
        expert: Score of the demonstrations.
        losses: Validation losses of the epochs, in order, if all epochs were spent; else empty.
    """
    if expert.success is not None and after.success is not None:
        assert expert.success_low is not None and after.success_high is not None
        far, level = after.success_high < expert.success_low / 2, "success"
        ours, theirs = f"{after.success:.2f}", f"{expert.success:.2f}"
    else:
        start = 0.0 if before is None else before.mean_return
        far = before is not None and after.return_high < start + (expert.return_low - start) / 2
        level, ours, theirs = "return", f"{after.mean_return:.4g}", f"{expert.mean_return:.4g}"
    if not far:
        return []
    recent = losses[-6:]
    if len(recent) > 1 and recent[-1] < min(losses[:-1]) and recent[-1] < recent[0] - FALLING * abs(recent[0]):
        advice = f"the loss was still falling after {len(losses)} of {len(losses)} epochs, so raise max_epochs first"
    else:
        advice = (
            "more episodes, a larger network or normalize_observations may help; nothing does where the expert sees "
            "what the observations do not tell"
        )
    return [f"The clone is far below its expert ({level} {ours} against {theirs}): {advice}."]


def doubts_about_convergence(after: Score, expert: Score, losses: Sequence[float]) -> list[str]:
    """Return that cloning has ended too early: below the expert beyond luck, and better with every epoch.

    Args:
        after: Of the clone.
        expert: Of the demonstrations.
        losses: As `doubts_about_clone` takes them.
    """
    if expert.success is not None and after.success is not None:
        assert expert.success_low is not None and after.success_high is not None
        below, told = (
            after.success_high < expert.success_low,
            f"success {after.success:.2f} against {expert.success:.2f}",
        )
    else:
        below = after.return_high < expert.return_low
        told = f"return {after.mean_return:.4g} against {expert.mean_return:.4g}"
    if not below or len(losses) < 2 or losses[-1] >= min(losses[:-1]):
        return []
    return [
        f"The clone is below its expert ({told}), and the last of {len(losses)} epochs was the best; raise max_epochs, "
        "or leave the rest to the next stage."
    ]


def _short_of(result: Score, gate: Criterion | None) -> str | None:
    """Return the score in words if it is significantly below a gate, else `None`."""
    if isinstance(gate, SuccessThreshold) and result.success_high is not None:
        short = result.success_high < gate.threshold - gate.margin
        return f"success {result.success:.2f}" if short else None
    if isinstance(gate, RewardThreshold):
        return (
            f"return {result.mean_return:.4g}" if result.return_high < gate.threshold - (gate.margin or 0.0) else None
        )
    return None


def _value(episode: Episode, success: bool) -> float:
    return float(bool(episode.success)) if success else episode.total_reward
