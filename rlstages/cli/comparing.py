"""`rlstages compare`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlstages.cli.launching import launcher, read_seeds, say
from rlstages.errors import MAX_SEED, ExitCode, require, require_seed
from rlstages.experiments.compare.arms import ARMS
from rlstages.experiments.jobs import Job
from rlstages.tracking import Extra

if TYPE_CHECKING:
    from rlstages.experiments.compare.comparison import Progress
    from rlstages.experiments.compare.plan import Plan


@dataclass(frozen=True)
class Options:
    """What the command line says of a comparison; see `rlstages compare --help`."""

    source: str
    parameters: Mapping[str, str]
    seeds: str
    arms: str | None
    more: Sequence[str]
    steps: int | None
    episodes: int
    out: Path | None
    track: str
    also: Sequence[Extra]
    trust_pickle: bool

    def plan(self, only: tuple[str, int] | None = None) -> Plan:
        """Return the plan, or that of one arm and seed alone."""
        from rlstages.experiments.compare.plan import make_plan, read_arm

        names = None if self.arms is None else [name.strip() for name in self.arms.split(",")]
        more, seeds = list(self.more), read_seeds(self.seeds)
        if only is not None:
            names = [only[0]] if only[0] in ARMS else []
            more, seeds = [text for text in more if read_arm(text)[0] == only[0]], [only[1]]
            require(bool(names or more), f"--run {only[0]}/{only[1]}: there is no such arm.")
        return make_plan(
            self.source,
            self.parameters,
            seeds=seeds,
            arms=names,
            more=more,
            steps=self.steps,
            episodes=self.episodes,
            track=self.track,
            track_also=self.also,
            trust_pickle=self.trust_pickle,
        )

    def directory(self, plan: Plan) -> Path:
        """Return where the comparison lies."""
        from rlstages.storage.run_directory import slug

        return self.out if self.out is not None else Path("runs") / f"compare-{slug(plan.name)}"

    def job(self, directory: Path, arm: str, seed: int, steps: int | None) -> Job:
        """Return the command that makes one run, or goes on with it."""
        from rlstages.experiments.compare.plan import read_arm, run_path

        arguments = ["compare", self.source]
        for name, value in self.parameters.items():
            arguments += ["-p", f"{name}={value}"]
        for text in self.more:
            arguments += ["--arm", text] if read_arm(text)[0] == arm else []
        arguments += ["--episodes", str(self.episodes), "--out", str(directory), "--track", self.track]
        arguments += [f"--track-{name}" for name in self.also]
        arguments += ["--trust-pickle"] if self.trust_pickle else []
        arguments += ["--run", f"{arm}/{seed}"] + ([] if steps is None else ["--steps", str(steps)])
        return Job(
            f"{arm}, seed {seed}", tuple(arguments), directory / "logs" / f"{run_path(directory, arm, seed).name}.txt"
        )


def compare_arms(options: Options, on: str, jobs: int | None, dry_run: bool) -> None:
    """Make what is missing of a comparison, and report."""
    if not dry_run:
        say(f"{options.source}: checking the arms ...")
    plan = options.plan()
    plan.require_comparable()
    from rlstages.experiments.compare.comparison import next_jobs, prepare_comparison, run_comparison
    from rlstages.experiments.compare.plan import require_free

    directory = options.directory(plan)

    def job_of(arm: str, seed: int, steps: int | None) -> Job:
        return options.job(directory, arm, seed, steps)

    if dry_run:
        require_free(directory, plan)
        work = next_jobs(directory, plan, job_of)
        for job in work:
            print(job)
        if any("--steps" not in job.arguments for job in work):
            print("# These decide how many steps all arms get; once they are done, --dry-run prints the others.")
        return
    run = launcher(on, jobs)
    prepare_comparison(directory, plan)
    progress = run_comparison(directory, plan, job_of, run, say)
    _report(directory, plan, progress)
    if progress.failures:
        sys.exit(ExitCode.FAULT)


def run_one(options: Options, which: str) -> None:
    """Make one run of a comparison, or go on with it."""
    arm, slash, seed = which.rpartition("/")
    good = bool(slash) and seed.isdecimal() and len(seed) <= len(str(MAX_SEED))
    require(good, f"--run is {which!r}; give an arm and a seed, such as staged/0.")
    require_seed("The seed of --run", int(seed))
    plan = options.plan(only=(arm, int(seed)))
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.experiments.compare.worker import run_arm

    leave_compiler_out()
    result = run_arm(options.directory(plan), plan, arm, int(seed), options.steps)
    print(f"{result.reason} Run directory: {os.fspath(result.path)}")
    sys.exit(ExitCode.INTERRUPTED if result.outcome == "interrupted" else 0)


def _report(directory: Path, plan: Plan, progress: Progress) -> None:
    """Print the outcome, and write it as JSON, CSV, figure and page."""
    from rlstages.experiments.compare.figure import INSTALL_MATPLOTLIB, can_draw, write_figures
    from rlstages.experiments.compare.files import write_csv, write_json
    from rlstages.experiments.compare.page import write_page
    from rlstages.experiments.compare.results import read_results
    from rlstages.experiments.compare.table import print_summary
    from rlstages.experiments.compare.verdict import judge

    results = read_results(directory, plan, progress.steps, progress.failures)
    verdict = judge(results)
    files = [write_json(directory, results, verdict), write_csv(directory, results)]
    if results.contrasts and can_draw():
        files += write_figures(directory, results)
    files.append(write_page(directory, results, verdict))
    print_summary(results, verdict)
    if not can_draw():
        print(INSTALL_MATPLOTLIB)
    print("Written: " + ", ".join(map(str, files)))
