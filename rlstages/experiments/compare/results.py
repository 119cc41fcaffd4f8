"""The results of a comparison's runs, read from their directories and summarised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlstages.errors import Fault
from rlstages.experiments.compare.arms import MEANINGS
from rlstages.experiments.compare.baselines import baselines_of
from rlstages.experiments.compare.curve import Curve, grid_interval, read_curve
from rlstages.experiments.compare.directory import run_path
from rlstages.experiments.compare.ending import RunEnd, row_at, run_end
from rlstages.experiments.compare.plan import Plan
from rlstages.experiments.compare.statistics import (
    CONFIDENCE,
    Estimate,
    StepsTo,
    band,
    chance_above,
    difference,
    estimate,
    holm,
    improvement,
    permutation_p,
    profile,
    steps_to,
)
from rlstages.experiments.compare.transfer import Explored, explored_by
from rlstages.specs.criteria.baselines import Baselines, normalized, value_of
from rlstages.specs.criteria.criterion import Measure

TEST_LEVEL = 1 - CONFIDENCE
PROFILE_LEVELS = 21


@dataclass(frozen=True)
class ArmResult:
    """The results of one arm.

    Attributes:
        name: Name of the arm.
        meaning: What it is, in half a sentence.
        runs: Its runs, in the order of the seeds.
        final: Interquartile mean of the final scores in each environment, the last variant first.
        normalized: Same, with chance as 0 and the expert as 1; `None` where the expert is missing.
        spread: Standard deviation over seeds in the last variant, or `None` for a single run.
        worst: Worst seed's score there.
        profile: Share of runs above each of the comparison's levels.
        steps: Environment steps to the last threshold.
        curve: Interquartile mean at each point of the grid, with its interval.
        level: Whether it is trained no further than its own stages.
        explored: What its policies tried as its last stage began, or `None` if that was not measured.
    """

    name: str
    meaning: str
    runs: tuple[RunEnd, ...]
    final: tuple[Estimate, ...]
    normalized: tuple[Estimate | None, ...]
    spread: float | None
    worst: float
    profile: tuple[float, ...]
    steps: StepsTo
    curve: tuple[Estimate, ...]
    level: bool
    explored: Explored | None


@dataclass(frozen=True)
class Contrast:
    """The contrast of the first arm with another.

    Attributes:
        other: Other arm's name.
        difference: Difference of the interquartile means in the last variant; positive if the first arm is better.
        improvement: Probability that a run of the first arm scores higher.
        p: P-value of a permutation test of equal scores, corrected for the number of arms (Holm).
        sooner: Probability that a run of the first arm reaches the last threshold sooner.
        speed_p: P-value of a permutation test of equal speed, corrected in the same way.
    """

    other: str
    difference: Estimate
    improvement: Estimate
    p: float
    sooner: float
    speed_p: float

    @property
    def sign(self) -> int:
        """1 if the first arm scores significantly higher, -1 if the other does, else 0."""
        return 0 if self.p >= TEST_LEVEL else 1 if self.improvement.value > 0.5 else -1

    @property
    def speed_sign(self) -> int:
        """1 if the first arm reaches the last threshold significantly sooner, -1 if the other does, else 0."""
        return 0 if self.speed_p >= TEST_LEVEL else 1 if self.sooner > 0.5 else -1


@dataclass(frozen=True)
class Results:
    """The results of a comparison.

    Attributes:
        plan: What was compared.
        steps: What every run could spend.
        grid: Steps at which curves have points.
        levels: Scores at which performance profiles have points.
        baselines: Chance and expert in each environment.
        measures: What is looked at in each environment: the plan's measure, or the return where held-out ones define no
            success.
        arms: Those with at least one finished run, the first arm first.
        contrasts: First arm against each other one.
        failures: Runs that did not come to their end, in words.
    """

    plan: Plan
    steps: int
    grid: tuple[int, ...]
    levels: tuple[float, ...]
    baselines: tuple[Baselines, ...]
    measures: tuple[Measure, ...]
    arms: tuple[ArmResult, ...]
    contrasts: tuple[Contrast, ...]
    failures: tuple[str, ...]

    @property
    def first(self) -> ArmResult:
        """The arm with which the others are compared."""
        return next(arm for arm in self.arms if arm.name == self.plan.reference)

    @property
    def least_runs(self) -> int:
        """The number of finished runs of the arm with the fewest."""
        return min(sum(run.failure is None for run in arm.runs) for arm in self.arms)


def read_results(directory: Path, plan: Plan, steps: int, failures: Mapping[tuple[str, int], str]) -> Results:
    """Read all runs of a comparison and summarise them.

    Args:
        directory: Directory of the comparison.
        plan: Plan of the comparison.
        steps: What every run could spend.
        failures: Why runs failed, by arm and seed.

    Raises:
        Fault: If no run came to its end.
    """
    baselines = baselines_of(directory, plan)
    measures = tuple[Measure, ...](plan.measure if b.random.success is not None else "return" for b in baselines)
    interval = grid_interval(steps, plan.rollout_steps)
    grid = (*range(0, steps, interval), steps)
    paths = {name: [run_path(directory, name, seed) for seed in plan.seeds] for name in plan.arms}
    curves = {name: [read_curve(path).on_grid(interval) for path in paths[name]] for name in plan.arms}
    ends = {
        name: [
            run_end(plan, seed, curve, steps, failures.get((name, seed)))
            for seed, curve in zip(plan.seeds, curves[name], strict=True)
        ]
        for name in plan.arms
    }
    failed = [f"{name}, seed {run.seed}: {run.failure}" for name in plan.arms for run in ends[name] if run.failure]
    finished = {name: runs for name, runs in ends.items() if any(run.failure is None for run in runs)}
    if not finished:
        raise Fault(f"No run came to its end, so there is nothing to compare: {failed[0]}", "runs-failed")
    levels = _levels(plan, baselines, finished)
    arms = tuple(
        _arm(
            plan,
            name,
            runs,
            curves[name],
            steps,
            grid,
            levels,
            baselines,
            measures,
            _explored(plan, name, paths[name], runs),
        )
        for name, runs in finished.items()
    )
    contrasts = _contrasts(plan, arms) if plan.reference in finished else ()
    return Results(plan, steps, grid, levels, tuple(baselines), measures, arms, contrasts, tuple(failed))


def finals(plan: Plan, arm: ArmResult) -> list[float]:
    """Return the final scores of an arm's finished runs in the last variant."""
    return [value_of(run.scores[0], plan.measure) for run in arm.runs if run.failure is None]


def _levels(plan: Plan, baselines: Sequence[Baselines], ends: Mapping[str, Sequence[RunEnd]]) -> tuple[float, ...]:
    if plan.measure == "success":
        return tuple(np.linspace(0.0, 1.0, PROFILE_LEVELS).tolist())
    scores = [run.scores[0].mean_return for runs in ends.values() for run in runs if run.failure is None]
    scores.append(baselines[0].random.mean_return)
    return tuple(np.linspace(min(scores), max(scores), PROFILE_LEVELS).tolist()) if scores else ()


def _arm(
    plan: Plan,
    name: str,
    runs: Sequence[RunEnd],
    curves: Sequence[Curve],
    steps: int,
    grid: Sequence[int],
    levels: Sequence[float],
    baselines: Sequence[Baselines],
    measures: Sequence[Measure],
    explored: Explored | None,
) -> ArmResult:
    done = [run for run in runs if run.failure is None]
    values = [[value_of(run.scores[i], measure) for run in done] for i, measure in enumerate(measures)]
    final = tuple(map(estimate, values))
    ends = [base.ends(measure) for base, measure in zip(baselines, measures, strict=True)]
    rows = [[row_at(c, point, steps) for point in grid] for c, run in zip(curves, runs, strict=True) if not run.failure]
    scores = [[math.nan if row is None else value_of(row.scores[0], plan.measure) for row in line] for line in rows]
    middle, low, high = band(np.array(scores))
    points = tuple(
        Estimate(float(m), None if low is None else float(low[i]), None if high is None else float(high[i]))
        for i, m in enumerate(middle)
    )
    return ArmResult(
        name=name,
        meaning=MEANINGS.get(name, "the curriculum with other parameters"),
        runs=tuple(runs),
        final=final,
        normalized=tuple(map(_normalized, final, ends)),
        spread=float(np.std(values[0], ddof=1)) if len(done) > 1 else None,
        worst=min(values[0]),
        profile=tuple(profile(values[0], levels)),
        steps=steps_to([run.spent for run in runs], [run.reached for run in runs]),
        curve=points,
        level=all(row.steps is None for row in map(lambda curve: curve.final(steps), curves) if row is not None),
        explored=explored,
    )


def _explored(plan: Plan, name: str, paths: Sequence[Path], runs: Sequence[RunEnd]) -> Explored | None:
    stages = [stage.name for stage in plan.arms[name].stages if stage.reinforces]
    return explored_by([path for path, run in zip(paths, runs, strict=True) if run.failure is None], stages)


def _normalized(found: Estimate, ends: tuple[float, float] | None) -> Estimate | None:
    if ends is None:
        return None
    value, least, most = (v if v is None else normalized(v, ends) for v in (found.value, found.low, found.high))
    return Estimate(math.nan if value is None else value, least, most)


def _contrasts(plan: Plan, arms: Sequence[ArmResult]) -> tuple[Contrast, ...]:
    first = next(arm for arm in arms if arm.name == plan.reference)
    others = [arm for arm in arms if arm is not first]
    own = finals(plan, first)
    ps = holm([permutation_p(own, finals(plan, arm)) for arm in others])
    speeds = holm([permutation_p(_waits(first), _waits(arm)) for arm in others])
    return tuple(
        Contrast(
            other=arm.name,
            difference=difference(own, finals(plan, arm)),
            improvement=improvement(own, finals(plan, arm)),
            p=p,
            sooner=chance_above(_waits(arm), _waits(first)),
            speed_p=speed_p,
        )
        for arm, p, speed_p in zip(others, ps, speeds, strict=True)
    )


def _waits(arm: ArmResult) -> list[float]:
    """Return the steps until the threshold of finished runs; those that never reach it come last, and are tied.

    All of them end after the same number of steps, so a test by their order needs no more than this. The log-rank test
    has an asymptotic p, which is too small for a handful of runs.
    """
    return [float(run.spent) if run.reached else math.inf for run in arm.runs if run.failure is None]
