"""The verdict of a comparison in words, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlstages.experiments.compare.caveats import caveats
from rlstages.experiments.compare.results import TEST_LEVEL, ArmResult, Contrast, Results, finals
from rlstages.experiments.compare.statistics import Estimate, chance_above, holm, permutation_p, seeds_needed
from rlstages.experiments.compare.wording import counted, interval, listed, score_text

NEGLIGIBLE = 0.01
LIKELY = 0.75
"""Chance that a run without a clone scores higher, from which on negative transfer is named."""


@dataclass(frozen=True)
class Conclusion:
    """The conclusion of a comparison.

    Attributes:
        outcome: Outcome of the first arm: `"wins"` or `"loses"` beyond luck, is `"ahead"` or `"behind"` within it,
            `"level"`, or `"none"` if it has no finished run.
        headline: One sentence: which arm won.
        size: Size of the difference, in words.
        sureness: Confidence in the difference, in words.
        speed: First arm to reach the last threshold, in words.
        transfer: Environments in which a clone slows learning down, and how little its policy explored.
        caveats: What a reader has to know besides.
    """

    outcome: str
    headline: str
    size: str
    sureness: str
    speed: str
    transfer: tuple[str, ...]
    caveats: tuple[str, ...]


def judge(results: Results) -> Conclusion:
    """Put a comparison into words."""
    if not results.contrasts:
        headline = f"There is nothing to compare: only {listed([arm.name for arm in results.arms])} came to an end."
        return Conclusion("none", headline, "", "", "", (), tuple(caveats(results)))
    first, contrasts = results.first, results.contrasts
    worse = [c for c in contrasts if c.sign < 0]
    better = [c for c in contrasts if c.sign > 0]
    rival = min(contrasts, key=lambda c: c.difference.value)
    gap = 0.0 if _is_nothing(results, rival) else rival.difference.value
    if len(better) == len(contrasts):
        outcome, headline = "wins", f"{first.name} wins."
    elif worse:
        rival = min(worse, key=lambda c: c.difference.value)
        outcome, headline = "loses", f"{first.name} does not win here: {rival.other} is better."
    elif gap > 0 and rival.improvement.value > 0.5:
        outcome, headline = "ahead", f"{first.name} is ahead, but not beyond luck."
    elif gap < 0 and rival.improvement.value < 0.5:
        outcome = "behind"
        headline = f"{first.name} does not win here: {rival.other} is ahead, though that may be luck."
    else:
        outcome, headline = "level", f"{first.name} does not win here: it is level with {rival.other}."
    return Conclusion(
        outcome,
        headline,
        _size(results, rival),
        _sureness(results, rival),
        _speed(results),
        tuple(_transfer(results)),
        tuple(caveats(results)),
    )


def _is_nothing(results: Results, contrast: Contrast) -> bool:
    """Return whether a difference is negligible."""
    return abs(contrast.difference.value) < _smallest(results)


def _smallest(results: Results) -> float:
    """Return the smallest relevant difference: 1 % of the distance from random actions to the expert."""
    ends = results.baselines[0].ends(results.plan.measure)
    size = ends[1] - ends[0] if ends else max(abs(value) for arm in results.arms for value in finals(results.plan, arm))
    return NEGLIGIBLE * size


def _size(results: Results, rival: Contrast) -> str:
    measure = results.plan.measure
    first, other = results.first, next(arm for arm in results.arms if arm.name == rival.other)
    text = (
        f"{measure.capitalize()} in the last variant: {first.name} {score_text(first.final[0].value, measure)}, "
        f"{other.name} {score_text(other.final[0].value, measure)}"
    )
    gap = rival.difference
    if gap.value == 0:
        return f"{text}; no difference."
    return f"{text}; difference {interval(_rounded(gap), measure)}{_share(results, gap.value)}."


def _rounded(found: Estimate) -> Estimate:
    """Return an estimate with three digits, because further digits from few runs mean nothing."""
    low, high = (None if end is None else float(f"{end:.3g}") for end in (found.low, found.high))
    return Estimate(float(f"{found.value:.3g}"), low, high)


def _share(results: Results, gap: float) -> str:
    ends = results.baselines[0].ends(results.plan.measure)
    return "" if ends is None else f", {abs(gap) / (ends[1] - ends[0]):.0%} of the way from chance to the expert"


def _sureness(results: Results, rival: Contrast) -> str:
    first, runs = results.first.name, results.least_runs
    beaten, ahead, open_ = ([c.other for c in results.contrasts if c.sign == sign] for sign in (1, -1, 0))
    parts = []
    if beaten:
        parts.append(f"Beyond luck, {first} scores higher than {_others(results, beaten)}")
    if ahead:
        parts.append(f"Beyond luck, {first} scores lower than {listed(ahead)}")
    if open_:
        parts.append(f"{listed(open_)} cannot be told apart from {first}")
    tests = f"permutation tests, 5 % over all {len(results.contrasts)} together"
    text = f"{'. '.join(parts)} ({tests if len(results.contrasts) > 1 else 'permutation test at 5 %'})."
    high, low, chance = first, rival.other, rival.improvement.value
    if chance < 0.5:
        high, low, chance = low, high, 1 - chance
    text += f" A run of {high} scores higher than one of {low} with probability {chance:.2f}."
    needed = seeds_needed(len(results.contrasts))
    if runs < needed and not beaten and not ahead:
        others = f"{len(results.contrasts)} others" if len(results.contrasts) > 1 else "another"
        text += (
            f" With {counted(runs, 'run')} an arm could not be told apart from {others} even if no two runs overlapped"
            f": that takes at least {needed}, so {_more_runs(results.plan.seeds, needed)}."
        )
    return text


def _more_runs(seeds: Sequence[int], needed: int) -> str:
    """Return what to do for that many runs of each arm; the seeds that are there stay."""
    if len(seeds) >= needed:
        return "have the failed ones made again"
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"go on with --seeds {seeds[0]}:{seeds[0] + needed}"
    return f"go on with more --seeds than {','.join(map(str, seeds))}"


def _speed(results: Results) -> str:
    threshold = score_text(results.plan.threshold, results.plan.measure)
    what = f"{results.plan.measure} {threshold}"
    reached = [arm for arm in results.arms if arm.steps.median is not None]
    if not reached:
        some = [
            f"{arm.name} on {arm.steps.reached} of {arm.steps.runs} seeds" for arm in results.arms if arm.steps.reached
        ]
        return f"No arm reaches {what} on half of its seeds{': ' + ', '.join(some) if some else ''}."
    order = sorted(reached, key=lambda arm: (arm.steps.median or 0.0, arm.name != results.first.name))
    ties = [arm for arm in order if arm.steps.median == order[0].steps.median]
    others, first = order[len(ties) :], results.first
    if len(ties) > 1:
        text = f"{listed([arm.name for arm in ties])} tie as the first to reach {what}: {_median(*ties)}"
    else:
        text = f"{ties[0].name} is the first to reach {what}: {_median(*ties)}"
    if others:
        text += f"; next is {others[0].name}, {_median(others[0])}"
    if first not in [*ties, *others[:1]]:
        own = _median(first) if first in reached else f"only on {first.steps.reached} of {first.steps.runs} seeds"
        text += f"; {first.name}: {own}"
    slower, sooner = ([c.other for c in results.contrasts if c.speed_sign == sign] for sign in (1, -1))
    if slower:
        text += f". Beyond luck, {first.name} is there sooner than {_others(results, slower)}"
    if sooner:
        text += f". Beyond luck, {first.name} is there later than {listed(sooner)}"
    if not slower and not sooner:
        text += ". None of this is beyond luck"
    return text + "."


def _median(*arms: ArmResult) -> str:
    """Say after how many steps arms of the same median reach the threshold, and on how many of their seeds."""
    shares = [f"{arm.steps.reached} of {arm.steps.runs}" for arm in arms]
    seeds = (
        f"{shares[0]} seeds{' each' if len(arms) > 1 else ''}" if len(set(shares)) == 1 else f"{listed(shares)} seeds"
    )
    return f"after {arms[0].steps.median:,.0f} steps (median; {seeds})"


def _transfer(results: Results) -> list[str]:
    """Name the arms that begin with a clone and score lower than one that begins with a random network."""
    plan, found = results.plan, list[str]()
    copies = {name: any(stage.demonstrates for stage in arm.stages) for name, arm in plan.arms.items()}
    fresh = [arm for arm in results.arms if not copies[arm.name]]
    if not fresh:
        return found
    best = max(fresh, key=lambda arm: arm.final[0].value)
    cloned = [arm for arm in results.arms if copies[arm.name] and not arm.level]
    ps = holm([permutation_p(finals(plan, arm), finals(plan, best)) for arm in cloned])
    for arm, p in zip(cloned, ps, strict=True):
        chance = chance_above(finals(plan, best), finals(plan, arm))
        if best.final[0].value - arm.final[0].value < _smallest(results) or chance < LIKELY:
            continue
        luck = "" if p < TEST_LEVEL else ", though that may be luck"
        text = f"Negative transfer: {best.name}, which copies nothing, scores higher than {arm.name}{luck}."
        found.append(f"{text}{_explored(arm)}")
    return found


def _explored(arm: ArmResult) -> str:
    """Say how much an arm's policies explored, and what to do if that is little."""
    seen = arm.explored
    if seen is None:
        return ""
    amount = f"{seen.entropy:.1%} of the largest" if seen.std is None else f"{seen.std:.2f} of half an action's range"
    where = f"as stage {seen.stage!r} began, its {'entropy' if seen.std is None else 'noise'} was {amount}"
    if not seen.certain:
        return f" The clone explores: {where} (median of {counted(seen.runs, 'run')}); look at what it was shown."
    text = f" The clone is certain and explores hardly anything: {where} (median of {counted(seen.runs, 'run')})"
    if seen.given_back:
        return f"{text}; exploration was given back in {counted(seen.given_back, 'run')}."
    return f"{text}; leave explore_again on, or set exploration= in that stage."


def _others(results: Results, names: Sequence[str]) -> str:
    return "every other arm" if 1 < len(names) == len(results.contrasts) else listed(names)
