"""`rlstages show`, `rlstages curricula` and `rlstages evaluate`."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlstages.cli.training import what_next
from rlstages.errors import InputError, require
from rlstages.events import text
from rlstages.experiments.compare.arms import is_compared
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.loading import load_curriculum, load_factory, named_curricula, parameters_of
from rlstages.specs.serialization import to_data
from rlstages.storage.groups import COMPARISON, SWEEP
from rlstages.storage.record import read_record
from rlstages.tracking.ladder import phase
from rlstages.tracking.overview import show
from rlstages.tracking.retention_table import kept, print_kept
from rlstages.tracking.state import RunState, StageState
from rlstages.tracking.wandb.tracker import place_lines, place_of


def show_curriculum(
    source: str, parameters: Mapping[str, str], initial: Path | None, as_json: bool, trust_pickle: bool
) -> None:
    """Print a curriculum, and check it like `train`."""
    from rlstages.environments.spaces import describe_space
    from rlstages.learners.algorithms.base import implementation_of
    from rlstages.training.start import check

    with redirect_stdout(sys.stderr if as_json else sys.stdout):  # Environments print, and JSON must stand alone.
        curriculum = load_curriculum(source, parameters)
        checked = check(curriculum, initial, trust_pickle)
    if as_json:
        print(curriculum.to_json())
        return
    print(curriculum)
    print(f"  observations {describe_space(checked.observation)}, actions {describe_space(checked.action)}")
    agent = curriculum.agent
    print(f"  engine {implementation_of(agent.algorithm).check(agent, checked.observation, checked.action)}")
    for doubt in checked.doubts:
        print(f"  but: {doubt}")
    print(f"  digest {curriculum.digest[:12]}; all checks passed, nothing was trained")


def refuse_directory(source: str) -> None:
    """Refuse a path that looks like a run directory and is none."""
    path = Path(source)
    if path.suffix == ".py" or source in named_curricula():
        return
    for file, what, told in ((COMPARISON, "comparison", "compare.html"), (SWEEP, "sweep", "sweep.csv")):
        if (path / file).is_file():
            sentence = f"{source} is a {what}, not a run: open {path / told}, or show one of the runs in it."
            raise InputError(sentence, "option-invalid", source)
    require(not path.is_dir(), f"{source} is not a run directory: it has no run.json.", "file-missing", source)
    separated = path.name != source
    sentence = f"There is no run directory {source}; give one, a curriculum's file, or its name."
    require(not separated, sentence, "file-missing", source)


def show_run(run: Path, as_json: bool) -> None:
    """Print the progress of a run."""
    seen = show(run)
    record, state, outcome, reason = seen.record, seen.state, seen.outcome, seen.reason
    current = state.current
    if as_json:
        about = {
            "run": run.name,
            "parameters": record.parameters,
            "wandb": place_of(run),
            "outcome": outcome,
            "reason": reason,
            "global_step": seen.steps,
            "stages": [to_data(end, nan_as_null=True) for end in seen.ends],
            "under_way": None if current is None or current.ended else _under_way(current),
            **kept(state),
        }
        print(json.dumps(about, indent=1))
        return
    print(record.curriculum)
    console = Console(markup=False, highlight=False)
    console.print(_stage_table(state, f"{run.name}: {outcome}, {seen.steps:,} steps, seed {record.seed}"))
    print_kept(state, console, run)
    for line in place_lines(run):
        print(line)
    if reason:
        print(f"{outcome}: {reason}")
    if is_compared(record.curriculum):
        if outcome not in ("reached", "paused"):
            print("The command of its comparison goes on with it.")
        return
    for line in what_next(outcome, run, None if current is None else record.curriculum.stages[current.index]):
        print(line)


def _stage_table(state: RunState, title: str) -> Table:
    table = Table(title=title)
    for column in ("stage", "outcome", "steps", "seconds", "before", "after"):
        table.add_column(column, justify="right" if column in ("steps", "seconds") else "left")
    for stage in state.stages:
        if not stage.started:
            table.add_row(stage.name, *"-----")
            continue
        end = stage.ended
        name = stage.name if stage.visit == 1 else f"{stage.name} ({stage.visit})"
        outcome = phase(stage) if end else "under way"
        seconds = f"{end.seconds:.0f}" if end else "-"
        after = stage.finished.after if stage.finished else None
        before = stage.finished.before if stage.finished else stage.before
        table.add_row(name, outcome, f"{stage.steps:,}", seconds, _brief(stage, before), _brief(stage, after))
    return table


def _under_way(stage: StageState) -> dict[str, object]:
    before = to_data(stage.before, nan_as_null=True)
    about = {"stage": stage.name, "visit": stage.visit, "phase": phase(stage)}
    return {**about, "stage_steps": stage.steps, "before": before}


def list_curricula() -> None:
    """Print the named curricula."""
    table = Table("name", "what it does", "parameters")
    for name in named_curricula():
        factory = load_factory(name)
        text = inspect.getdoc(inspect.getmodule(factory)) or ""
        parameters = parameters_of(factory).values()
        takes = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
        table.add_row(name, text.partition("\n")[0], ", ".join(takes))
    Console().print(table)


def evaluate_policy(
    run: Path,
    source: str | None,
    parameters: Mapping[str, str],
    episodes: int,
    seed: int,
    as_json: bool,
    trust_imports: bool,
) -> None:
    """Print the scores of a run's final policy."""
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.play.saved_policies import evaluate
    from rlstages.training.conditions import changes

    leave_compiler_out()
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        curriculum = None if source is None else load_curriculum(source, parameters)
        scores = evaluate(run, episodes, seed, curriculum=curriculum, trust_imports=trust_imports)
    record = read_record(run)
    for sentence in changes(run, record):
        print(f"warning: {run}: {sentence} These scores are of what is there now.", file=sys.stderr)
    mode = record.curriculum.agent.action_mode
    if as_json:
        rows = [{"environment": to_data(environment), **_plain(score)} for environment, score in scores]
        print(json.dumps({"run": run.name, "action_mode": mode, "seed": seed, "scores": rows}, indent=1))
        return
    table = Table(title=f"{run.name}, {mode} actions, 95 % intervals")
    for column in ("environment", "episodes", "return", "success"):
        table.add_column(column)
    for environment, score in scores:
        ends = [score.success_low, score.success_high]
        solved = "-" if score.success is None else _interval(score.success, ends, ".2f")
        returned = _interval(score.mean_return, [score.return_low, score.return_high], ".3g")
        table.add_row(str(environment), str(score.episodes), returned, solved)
    Console().print(table)


def _plain(score: Score) -> dict[str, object]:
    return {key: value for key, value in to_data(score, nan_as_null=True).items() if key != "$type"}


def _interval(value: float, ends: Sequence[float | None], form: str) -> str:
    return f"{value:{form}} [{ends[0]:{form}}, {ends[1]:{form}}]"


def _brief(stage: StageState, score: Score | None) -> str:
    return "-" if score is None else f"{stage.measure_of(score)} {text.number(stage.measured(score))}"
