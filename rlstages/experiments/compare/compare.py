"""Making a comparison, from its plan to its verdict: `rlstages.compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstages.environments.scripts import refuse_while_imported
from rlstages.experiments.compare.comparison import prepare_comparison, run_comparison
from rlstages.experiments.compare.directory import directory_of
from rlstages.experiments.compare.figure import can_draw, write_figures
from rlstages.experiments.compare.files import write_csv, write_json
from rlstages.experiments.compare.page import write_page
from rlstages.experiments.compare.plan import Plan, make_plan
from rlstages.experiments.compare.results import Results, read_results
from rlstages.experiments.compare.verdict import Conclusion, judge
from rlstages.experiments.jobs import launcher_on, printer
from rlstages.specs.curriculum import Curriculum
from rlstages.tracking import Extra, Track


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        path: Its directory.
        results: What was measured, for each arm and each pair of arms.
        conclusion: What follows from that, in words and as an `outcome`.
        files: What was written: `compare.json`, `compare.csv`, `compare.html`, and figures where matplotlib is there.
    """

    path: Path
    results: Results
    conclusion: Conclusion
    files: tuple[Path, ...]


def compare(
    curriculum: Curriculum,
    *,
    seeds: Sequence[int] = range(5),
    arms: Sequence[str] | None = None,
    own_arms: Mapping[str, Curriculum] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    steps: int | None = None,
    episodes: int = 200,
    out: Path | str | None = None,
    on: str = "local",
    jobs: int | None = None,
    track: Track = "none",
    track_also: Sequence[Extra] = (),
    console: bool = False,
    trust_pickle: bool = False,
) -> Comparison:
    """Train a curriculum and its ablations at equal cost, and report which one wins.

    Runs are processes of their own. The same call goes on with a comparison that was interrupted, and adds seeds or
    arms to one that is done. A script calls this below `if __name__ == "__main__":` if functions of its own are part of
    the curriculum, because the runs import the script.

    Args:
        curriculum: What is compared with its ablations.
        seeds: Every arm is run with each.
        arms: Names of arms (`staged`, `no-cloning`, `no-curriculum`, `scratch`, `clone-only`, `naive-handover`), or
            `None` for all that differ.
        own_arms: More arms: curricula, by the names of the arms.
        parameters: Those that each own arm was made with, by its name; those of `curriculum` by `"staged"`. They are
            noted in `run.json` and at Weights & Biases.
        steps: Environment steps of every run; `None` for what the curriculum needs at most.
        episodes: Played for a final score, at least 4.
        out: Comparison's directory; default `runs/compare-NAME`.
        on: Place of the runs: `"local"`, `"ray"` or `"ray=ADDRESS"`.
        jobs: Runs at a time; `None` for one for each core, or what Ray has room for.
        track: Mode of Weights & Biases, as for `train`.
        track_also: What else it is sent, as in `train`.
        console: Whether to print how far the comparison has come.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.

    Raises:
        InputError: Before the first run, if something cannot work, or the directory holds something else.
        Fault: If no run came to its end. Runs that failed beside others are in `results.failures`.
    """
    refuse_while_imported("compare")
    plan = make_plan(
        curriculum,
        seeds=seeds,
        arms=arms,
        own_arms=own_arms,
        parameters=parameters,
        steps=steps,
        episodes=episodes,
        track=track,
        track_also=track_also,
        trust_pickle=trust_pickle,
    )
    return compare_plan(plan, None if out is None else Path(out), on, jobs, console)


def compare_plan(plan: Plan, out: Path | None, on: str, jobs: int | None, console: bool) -> Comparison:
    """Make the missing runs of a comparison, and write the outcome as JSON, CSV, figure and page.

    Args:
        plan: Plan of the comparison.
        out: Directory, as for `compare`.
        on: Place of the runs, as for `compare`.
        jobs: Runs at a time.
        console: Whether to print how far the comparison has come.
    """
    plan.require_comparable()
    directory, run = directory_of(plan, out), launcher_on(on, jobs)
    prepare_comparison(directory, plan)
    progress = run_comparison(directory, plan, run, printer(console))
    results = read_results(directory, plan, progress.steps, progress.failures)
    verdict = judge(results)
    files = [write_json(directory, results, verdict), write_csv(directory, results)]
    if results.contrasts and can_draw():
        files += write_figures(directory, results)
    files.append(write_page(directory, results, verdict))
    return Comparison(directory, results, verdict, tuple(files))
