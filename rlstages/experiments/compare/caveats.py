"""Caveats of a comparison, besides its verdict."""

from __future__ import annotations

from rlstages.experiments.compare.results import ArmResult, Results
from rlstages.experiments.compare.wording import counted, listed

FEW_SEEDS = 10
LEAST_FOR_QUARTERS = 4


def caveats(results: Results) -> list[str]:
    """Return the caveats, one sentence each."""
    runs = results.least_runs
    found = [f"Not finished, and left out of all scores: {failure.rstrip('.')}." for failure in results.failures]
    if runs == 1:
        found.append("One seed says nothing about another: there are no intervals, and no test.")
    elif runs < FEW_SEEDS:
        found.append(
            f"{runs} seeds are few: the intervals are resampled from so few runs and tend to be too narrow; "
            "believe the tests before the intervals."
        )
    if runs < LEAST_FOR_QUARTERS:
        found.append("With fewer than 4 runs no quarter can be cut off: interquartile means are plain means.")
    for environment, base, measure in zip(results.plan.environments, results.baselines, results.measures, strict=True):
        if base.expert is None:
            found.append(f"{environment}: scores are not normalised, because {base.reason}.")
        elif base.ends(measure) is None:
            found.append(
                f"{environment}: scores are not normalised, because the expert is no better than chance there."
            )
    found += filter(None, (_short_of_it(results, arm) for arm in results.arms))
    over = {arm.name: most for arm in results.arms if (most := max(run.excess for run in arm.runs))}
    if over:
        spent = results.steps + max(over.values())
        found.append(
            f"Costs are not equal: of {results.steps:,} steps, runs of {listed(list(over))} spent up to {spent:,}. "
            "Cloning and its demonstrations are never cut short, and what is spent is not taken back; "
            f"give --steps {spent} or more."
        )
    missed = {
        arm.name: sum(bool(run.missed) for run in arm.runs) for arm in results.arms if any(r.missed for r in arm.runs)
    }
    for name, count in missed.items():
        found.append(
            f"{name} missed the threshold of one of its own stages on {counted(count, 'seed')}, and went on without it."
        )
    return found


def _short_of_it(results: Results, arm: ArmResult) -> str | None:
    """Return a caveat if runs of an arm spent all their steps before they reached the last variant."""
    stages = results.plan.arms[arm.name].stages
    after = [
        max((i for i, stage in enumerate(stages) if any(mark.stage == stage.name for mark in run.marks)), default=-1)
        for run in arm.runs
        if run.failure is None and run.own_cost is None
    ]
    under_way = [stages[index + 1] for index in after if index + 1 < len(stages)]
    stuck = [stage for stage in under_way if stage.environment != results.plan.environments[0]]
    if not stuck:
        return None
    where = listed(list(dict.fromkeys(repr(stage.name) for stage in stuck)))
    return (
        f"{arm.name} never trained in the last variant on {len(stuck)} of {counted(len(arm.runs), 'seed')}: its "
        f"{results.steps:,} steps were spent in {where}; raise --steps."
    )
