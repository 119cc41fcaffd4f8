"""The runs of a comparison: those that are missing, their order, and their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlstages.errors import Fault
from rlstages.experiments.compare.baselines import baselines_of
from rlstages.experiments.compare.budget import settle_steps, steps_of
from rlstages.experiments.compare.curve import read_curve
from rlstages.experiments.compare.directory import claim_comparison, plan_needs_trust, run_path, write_plan
from rlstages.experiments.compare.plan import Plan
from rlstages.experiments.jobs import Job, Launcher, teller
from rlstages.training.preflight import preflight


@dataclass(frozen=True)
class Progress:
    """The progress of a comparison.

    Attributes:
        steps: What every run may spend.
        failures: Why runs did not come to their end, by arm and seed.
    """

    steps: int
    failures: Mapping[tuple[str, int], str]


def prepare_comparison(directory: Path, plan: Plan) -> None:
    """Check everything before the first run, and measure the baselines.

    Raises:
        InputError: If a curriculum cannot work, or the directory cannot be used for this comparison.
    """
    plan.require_comparable()
    own = [arm for name, arm in plan.arms.items() if name != plan.reference]
    for curriculum in dict.fromkeys([plan.arms[plan.reference], *own]):
        preflight(curriculum, trust_pickle=plan.trust_pickle)
    claim_comparison(directory, plan)
    # Fewer than before are refused here rather than by every run.
    steps_of(directory, plan)
    baselines_of(directory, plan)


def missing(directory: Path, plan: Plan, steps: int | None) -> list[tuple[str, int]]:
    """Return the arms and seeds of missing or unfinished runs.

    Args:
        directory: Directory of the comparison.
        plan: Plan of the comparison.
        steps: What every run may spend; `None` gives those that decide it.
    """
    wanted = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
    if steps is None:
        wanted = [(plan.reference, seed) for seed in plan.seeds]
    return [(arm, seed) for arm, seed in wanted if not _done(run_path(directory, arm, seed), steps)]


def jobs_of(directory: Path, plan: Plan, steps: int | None) -> dict[Job, tuple[str, int]]:
    """Return the jobs of missing or unfinished runs, each with its arm and seed.

    Args:
        directory: Directory of the comparison, which is there.
        plan: Plan of the comparison, which is written for the jobs.
        steps: What every run may spend; `None` gives those that decide it.
    """
    keys = missing(directory, plan, steps)
    if not keys:
        return {}
    options = [] if steps is None else ["--steps", str(steps)]
    options += ["--trust-imports"] if plan_needs_trust(plan) else []
    start, logs = ["compare-run", str(write_plan(directory, plan)), "--run"], directory / "logs"
    return {
        Job(
            f"{arm}, seed {seed}",
            (*start, f"{arm}/{seed}", *options),
            logs / f"{run_path(directory, arm, seed).name}.txt",
        ): (arm, seed)
        for arm, seed in keys
    }


def next_jobs(directory: Path, plan: Plan) -> list[Job]:
    """Return the jobs that can start now: those that determine the budget, or, when these are done, the others.

    Raises:
        InputError: If the directory cannot be used for this comparison.
    """
    plan.require_comparable()
    claim_comparison(directory, plan)
    steps = steps_of(directory, plan)
    deciding = {} if plan.steps is not None else jobs_of(directory, plan, None)
    return list(deciding or jobs_of(directory, plan, steps))


def run_comparison(
    directory: Path,
    plan: Plan,
    run: Launcher,
    say: Callable[[str], None],
) -> Progress:
    """Make all missing runs.

    Args:
        directory: Directory of the comparison, after `prepare_comparison`.
        plan: Plan of the comparison.
        run: Runs jobs, and takes what is to be told of each that has ended.
        say: Function that takes sentences for the user.

    Raises:
        Fault: If no run of the first arm came to its end, where these decide the number of steps.
    """
    failures: dict[tuple[str, int], str] = {}

    def launch(steps: int | None, what: str) -> None:
        jobs = {job: key for job, key in jobs_of(directory, plan, steps).items() if key not in failures}
        if jobs:
            say(f"{what}: {len(jobs)} runs.")
            ended = run(list(jobs), teller(len(jobs), say))
            failures.update({jobs[one.job]: one.failure for one in ended if one.failure is not None})

    if plan.steps is None:
        launch(None, f"How many steps {plan.reference!r} needs")
    steps = steps_of(directory, plan)
    if steps is None:
        why = next(iter(failures.values()), "it has no run")
        raise Fault(
            f"No run of {plan.reference!r} came to its end, so there is nothing to compare with: {why}", "runs-failed"
        )
    settle_steps(directory, steps)
    launch(steps, f"Every arm for {steps:,} steps")
    return Progress(steps, failures)


def _done(path: Path, steps: int | None) -> bool:
    curve = read_curve(path)
    return curve.own_cost is not None if steps is None else curve.final(steps) is not None
