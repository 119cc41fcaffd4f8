"""The retention matrix and the hand-over of a run, gathered from its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlstages.events import HandoverRecovered, Retained, RetentionMeasured, text
from rlstages.events.checks import FEW, common_measure, rough
from rlstages.specs.criteria.baselines import normalized, value_of
from rlstages.specs.variants import Variant, is_scored_next, variants_of
from rlstages.storage.record import shell_path
from rlstages.tracking.state import RunState, StageState

KEPT = 0.9
"""Share of the score at the end of a variant's own stage below which a score is shown in colour."""

_MEASURES = {"normalized": "normalized score", "success": "success", "return": "return"}


@dataclass(frozen=True)
class Column:
    """One environment of a retention matrix.

    Attributes:
        name: Name of the stage that trains there, or of an environment that is held out.
        held_out: Whether it is never trained in.
        values: Values of each policy, in the order of the rows; `None` where there is none.
        episodes: Episodes of each of them; 0 where there is none.
        own: Row of the last stage that trains there, or `None`.
    """

    name: str
    held_out: bool
    values: tuple[float | None, ...]
    episodes: tuple[int, ...]
    own: int | None


@dataclass(frozen=True)
class Matrix:
    """The scores of the policy after each stage in each environment.

    Attributes:
        stages: Rows, by the name of the stage that the policy left.
        columns: Environments; those held out come last.
        cells: Same in full, row by row.
        measure: Measure of all values: `"normalized"` where every one of them can be, else `"success"` or `"return"`.
        unplayed: Cells that are empty as the run had no steps for them.
        steps: Environment steps it took.
        seconds: Seconds that it took.
        share: Share of the run's time, all of its stages and this counted.
    """

    stages: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Retained, ...], ...]
    measure: str
    unplayed: int
    steps: int
    seconds: float
    share: float


def matrix_of(state: RunState) -> Matrix | None:
    """Return the retention matrix of a run, or `None` if no stage has ended or it is switched off."""
    measured = [(stage, told) for stage in state.stages if (told := stage.last(RetentionMeasured)) is not None]
    if not measured:
        return None
    variants = variants_of(state.curriculum)
    rows = [stage for stage, _ in measured]
    cells = [tuple(_cell(state, stage, told, variant) for variant in variants) for stage, told in measured]
    measure = common_measure([cell for row in cells for cell in row])
    columns = tuple(
        _column(state, rows, variant, [row[variant.index] for row in cells], measure) for variant in variants
    )
    unplayed = sum(
        cell.score is None and not is_scored_next(state.curriculum, stage.index, variant.environment)
        for stage, row in zip(rows, cells, strict=True)
        for cell, variant in zip(row, variants, strict=True)
    )
    steps, seconds = (max(told.steps for _, told in measured), max(told.seconds for _, told in measured))
    trained = sum(stage.finished.seconds for stage in state.stages if stage.finished)
    share = seconds / (trained + seconds) if trained + seconds > 0 else 0.0
    names = tuple(stage.name for stage in rows)
    return Matrix(names, columns, tuple(cells), measure, unplayed, steps, seconds, share)


def _cell(state: RunState, stage: StageState, told: RetentionMeasured, variant: Variant) -> Retained:
    """Return a score, normalised by the known baselines; use the score of the next stage if that has one."""
    unknown = Retained(variant.name, variant.measure, None, None)
    found = next((one for one in (*told.scores, *told.held_out) if one.environment == variant.name), unknown)
    score, following = found.score, state.stages[stage.index + 1 : stage.index + 2]
    if score is None and following:
        spec = state.curriculum.stages[stage.index + 1]
        score = following[0].before if spec.environment == variant.environment else None
    measure = found.measure if score is None or score.success is not None else "return"
    baselines = state.baselines.get(variant.name)
    ends = baselines.ends(measure) if baselines is not None else None
    scaled = None if score is None or ends is None else normalized(value_of(score, measure), ends)
    return Retained(found.environment, measure, score, scaled)


def _column(
    state: RunState, rows: Sequence[StageState], variant: Variant, cells: Sequence[Retained], measure: str
) -> Column:
    values = tuple(cell.value(measure) for cell in cells)
    episodes = tuple(cell.score.episodes if cell.score else 0 for cell in cells)
    specs = state.curriculum.stages
    own = [row for row, stage in enumerate(rows) if specs[stage.index].environment == variant.environment]
    return Column(variant.name, variant.held_out, values, episodes, own[-1] if own else None)


def matrix_table(matrix: Matrix) -> Table:
    """Return a table with a row for each policy and a column for each environment."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"{_MEASURES[matrix.measure]} in\nafter", no_wrap=True)
    for column in matrix.columns:
        table.add_column(f"{column.name}\n{'held out' * column.held_out}", justify="right")
    for row, stage in enumerate(matrix.stages):
        table.add_row(Text(stage), *(_shown(column, row) for column in matrix.columns))
    return table


def _shown(column: Column, row: int) -> Text:
    value, own = column.values[row], column.own
    style = "bold" if row == own else ""
    then = column.values[own] if own is not None and own < row else None
    if value is not None and then is not None and then > 0 and value < KEPT * then:
        style = "yellow"
    return Text(rough(value, column.episodes[row]), style)


def print_kept(state: RunState, console: Console, run: Path | None = None) -> None:
    """Print the matrix and the hand-overs, if there are any; `run` is the run directory."""
    matrix = matrix_of(state)
    if matrix is not None:
        console.print(matrix_table(matrix))
        for note in [*notes(state, matrix, run), *([cost_line(matrix)] if matrix.steps else [])]:
            console.print(Text(note, "dim"), soft_wrap=True)
    for line in handover_lines(state):
        console.print(Text(line), soft_wrap=True)


def notes(state: RunState, matrix: Matrix, run: Path | None = None) -> list[str]:
    """Return the notes below the matrix, one line each."""
    told = []
    evaluate = f"rlstages evaluate {'RUN' if run is None else shell_path(run)}"
    if matrix.measure == "normalized":
        told.append("normalized: (score - chance) / (expert - chance)")
    few = [number for column in matrix.columns for number in column.episodes if 0 < number < FEW]
    if few:
        told.append(f"~ : of {_span(few)} episodes only, so it may be luck")
    if matrix.unplayed:
        share = f"retention_share={state.curriculum.retention_share:g} is spent"
        told.append(f"- : not played; {share}: raise it, or let {evaluate} score the last policy")
    last = state.current
    stopped = state.finish is not None and state.finish.outcome == "missed"
    if stopped and last and last.finished and last.last(RetentionMeasured) is None:
        told.append(f"The run stopped in {last.name!r}, so its policy has no row: {evaluate} scores it.")
    return told


def _span(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"


def cost_line(matrix: Matrix) -> str:
    """Return the cost of the matrix, in one line."""
    took = f"{text.count(matrix.steps)} environment steps and {text.span(matrix.seconds)}"
    return f"These scores took {took}, {matrix.share:.1%} of the run's time."


def handover_lines(state: RunState) -> list[str]:
    """Return a line for each hand-over, with the drop of the policy and the time of its recovery."""
    return [_handover(state, stage) for stage in state.stages if stage.handover]


def dip_of(state: RunState, stage: StageState) -> tuple[float, bool]:
    """Return the drop of the policy in the first comparison after the hand-over, and whether it is normalised.

    It is a share of the distance from chance to the expert where both are known and the matrix is normalised, and else
    in the measure's own units.
    """
    first = stage.handover[0]
    measure = first.measure(stage)
    dip = value_of(first.before, measure) - value_of(first.after, measure)
    environment = state.curriculum.stages[stage.index].environment
    names = [variant.name for variant in variants_of(state.curriculum) if variant.environment == environment]
    baselines = state.baselines.get(names[0])
    matrix = matrix_of(state)
    told_so = matrix is None or matrix.measure == "normalized"
    ends = baselines.ends(measure) if baselines is not None and told_so else None
    return (dip, False) if ends is None else (dip / (ends[1] - ends[0]), True)


def _handover(state: RunState, stage: StageState) -> str:
    dip, scaled = dip_of(state, stage)
    checks = stage.handover
    rollbacks = sum(check.rolled_back for check in checks)
    unit = " (normalized)" if scaled else f" in {checks[0].measure(stage)}"
    back = f", {rollbacks} rollback{'s' * (rollbacks != 1)}" if rollbacks else ""
    recovered = stage.last(HandoverRecovered)
    if recovered is not None:
        end = f", recovered {text.count(recovered.steps)} steps after the first update"
    else:
        end = ", not recovered yet" if any(check.fell for check in checks) else ""
    return f"hand-over to {stage.name!r}: {checks[0].fall(dip, unit)}{back}{end}"


def kept(state: RunState) -> dict[str, Any]:
    """Return the hand-overs and the final policy's scores as JSON data, for a run's summary."""
    matrix = matrix_of(state)
    handovers = {
        stage.name: {
            "dip": dip,
            "normalized": scaled,
            "rollbacks": sum(check.rolled_back for check in stage.handover),
            "steps_to_recover": recovered.steps if recovered else None,
        }
        for stage in state.stages
        if stage.handover
        for (dip, scaled), recovered in [(dip_of(state, stage), stage.last(HandoverRecovered))]
    }
    if matrix is None:
        return {"handover": handovers}
    columns = {
        column.name: {
            "measure": matrix.measure,
            "held_out": column.held_out,
            "after": dict(zip(matrix.stages, column.values, strict=True)),
            "episodes": dict(zip(matrix.stages, column.episodes, strict=True)),
        }
        for column in matrix.columns
    }
    cost = {"steps": matrix.steps, "seconds": matrix.seconds, "share": matrix.share}
    return {"handover": handovers, "retention": columns, "retention_cost": cost}
