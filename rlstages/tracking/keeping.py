"""What a run kept on its way, gathered from its events: the retention matrix, and the hand-over after cloning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlstages.baselines import normalized, value_of
from rlstages.events import HandoverChecked, Retained, RetentionMeasured
from rlstages.tracking import text
from rlstages.tracking.state import RunState, StageState
from rlstages.variants import Variant, variants_of

KEPT = 0.9
"""A smaller share of what the policy scored there when that variant's own stage ended is shown in colour."""


@dataclass(frozen=True)
class Column:
    """One environment of a retention matrix.

    Attributes:
        name: Of the stage that trains there, or of an environment that is held out.
        measure: `"normalized"`, or `"success"` or `"return"` where that cannot be.
        held_out: Whether it is never trained in.
        values: Of each policy, in the order of the rows; `None` where there is none.
        own: The row of the last stage that trains there, or `None`.
    """

    name: str
    measure: str
    held_out: bool
    values: tuple[float | None, ...]
    own: int | None


@dataclass(frozen=True)
class Matrix:
    """What each policy that left a stage scores in each environment.

    Attributes:
        stages: The rows, by the name of the stage that the policy left.
        columns: The environments; those held out come last.
        cells: The same in full, row by row.
        steps: Environment steps it took.
        seconds: Likewise.
        share: Of the run's time, all of its stages and this counted.
    """

    stages: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Retained, ...], ...]
    steps: int
    seconds: float
    share: float


def matrix_of(state: RunState) -> Matrix | None:
    """Return the retention matrix of a run, or `None` if no stage has ended or it is switched off."""
    rows = [stage for stage in state.stages if stage.retention is not None]
    told = [stage.retention for stage in rows if stage.retention is not None]
    if not told:
        return None
    variants = variants_of(state.curriculum)
    cells = [tuple(_cell(state, stage, variant) for variant in variants) for stage in rows]
    columns = tuple(_column(state, rows, variant, [row[variant.index] for row in cells]) for variant in variants)
    steps, seconds = max(row.steps for row in told), max(row.seconds for row in told)
    trained = sum(stage.finished.seconds for stage in state.stages if stage.finished)
    share = seconds / (trained + seconds) if trained + seconds > 0 else 0.0
    return Matrix(tuple(stage.name for stage in rows), columns, tuple(cells), steps, seconds, share)


def _cell(state: RunState, stage: StageState, variant: Variant) -> Retained:
    """Return a score, on the scale of what is known by now; the next stage's own one where that has it."""
    assert stage.retention is not None
    told = (*stage.retention.scores, *stage.retention.held_out)
    unknown = Retained(variant.name, variant.measure, None, None)
    found = next((one for one in told if one.environment == variant.name), unknown)
    score, following = found.score, state.stages[stage.index + 1 : stage.index + 2]
    if score is None and following:
        spec = state.curriculum.stages[stage.index + 1]
        score = following[0].before if spec.environment == variant.environment else None
    measure = found.measure if score is None or score.success is not None else "return"
    baselines = state.baselines.get(variant.name)
    ends = baselines.ends(measure) if baselines is not None else None
    scaled = None if score is None or ends is None else normalized(value_of(score, measure), ends)
    return Retained(found.environment, measure, score, scaled)


def _column(state: RunState, rows: Sequence[StageState], variant: Variant, cells: Sequence[Retained]) -> Column:
    scored = [cell for cell in cells if cell.score is not None]
    scaled = bool(scored) and all(cell.normalized is not None for cell in scored)
    raw = [None if cell.score is None else value_of(cell.score, cell.measure) for cell in cells]
    values = [cell.normalized for cell in cells] if scaled else raw
    specs = state.curriculum.stages
    own = [row for row, stage in enumerate(rows) if specs[stage.index].environment == variant.environment]
    measure = "normalized" if scaled else scored[0].measure if scored else variant.measure
    return Column(variant.name, measure, variant.held_out, tuple(values), own[-1] if own else None)


def matrix_table(matrix: Matrix) -> Table:
    """Return a table with a row for each policy and a column for each environment."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("score in\nafter", no_wrap=True)
    for column in matrix.columns:
        kind = f"held out, {column.measure}" if column.held_out else column.measure
        table.add_column(f"{column.name}\n{kind}", justify="right")
    for row, stage in enumerate(matrix.stages):
        table.add_row(Text(stage), *(_shown(column, row) for column in matrix.columns))
    return table


def _shown(column: Column, row: int) -> Text:
    value, own = column.values[row], column.own
    style = "bold" if row == own else ""
    then = column.values[own] if own is not None and own < row else None
    if value is not None and then is not None and then > 0 and value < KEPT * then:
        style = "yellow"
    return Text(text.number(value), style)


def print_kept(state: RunState, console: Console) -> None:
    """Print the matrix and the hand-overs, if there are any."""
    matrix = matrix_of(state)
    if matrix is not None:
        console.print(matrix_table(matrix))
        console.print(Text(cost_line(matrix), "dim"), soft_wrap=True)
    for line in handover_lines(state):
        console.print(Text(line), soft_wrap=True)


def cost_line(matrix: Matrix) -> str:
    """Return what the matrix has taken, in one line."""
    took = f"{text.count(matrix.steps)} environment steps and {text.span(matrix.seconds)}"
    return f"These scores took {took}, {matrix.share:.1%} of the run's time."


def retention_line(told: RetentionMeasured) -> str:
    """Return what a policy scores where it has just been measured, in one line."""
    cells = [*told.scores, *told.held_out]
    shown = [f"{cell.environment} {_brief(cell)}" for cell in cells if cell.score is not None]
    return f"scores elsewhere: {', '.join(shown)}" if shown else ""


def _brief(cell: Retained) -> str:
    assert cell.score is not None
    return text.number(cell.normalized if cell.normalized is not None else value_of(cell.score, cell.measure))


def handover_line(check: HandoverChecked, stage: StageState) -> str:
    """Return how the policy compares with the clone that it was, in one line."""
    before, after = (text.number(stage.measured(score)) for score in (check.before, check.after))
    end = "the clone is back" if check.rolled_back else "a drop" if check.fell else "no drop"
    return f"hand-over: {stage.measure_of(check.before)} {before} before, {after} after the first updates: {end}"


def handover_lines(state: RunState) -> list[str]:
    """Return a line for each stage that took over a clone: how far it fell, and when it had recovered."""
    return [_handover(state, stage) for stage in state.stages if stage.handover]


def dip_of(state: RunState, stage: StageState) -> tuple[float, bool]:
    """Return how far the policy fell at the first look after the hand-over, and whether that is normalised.

    It is a share of the distance from chance to the expert where both are known, and else in the measure's own units.
    """
    first = stage.handover[0]
    measure = "success" if stage.measure == "success" and first.before.success is not None else "return"
    dip = value_of(first.before, measure) - value_of(first.after, measure)
    environment = state.curriculum.stages[stage.index].environment
    names = [variant.name for variant in variants_of(state.curriculum) if variant.environment == environment]
    baselines = state.baselines.get(names[0])
    ends = baselines.ends(measure) if baselines is not None else None
    return (dip, False) if ends is None else (dip / (ends[1] - ends[0]), True)


def _handover(state: RunState, stage: StageState) -> str:
    dip, scaled = dip_of(state, stage)
    checks = stage.handover
    rollbacks = sum(check.rolled_back for check in checks)
    fell = f"a dip of {text.number(max(dip, 0.0) if not math.isnan(dip) else None)}"
    unit = " (normalized)" if scaled else f" in {'success' if stage.measure == 'success' else 'return'}"
    back = f", {rollbacks} rollback{'s' * (rollbacks != 1)}" if rollbacks else ""
    if stage.recovered is not None:
        end = f", recovered {text.count(stage.recovered.steps)} steps after the first update"
    else:
        end = ", not recovered yet" if any(check.fell for check in checks) else ""
    return f"hand-over to {stage.name!r}: {fell}{unit}{back}{end}"


def kept(state: RunState) -> dict[str, Any]:
    """Return the hand-overs and the last policy's scores as JSON data: what a run's summary holds."""
    matrix = matrix_of(state)
    handovers = {
        stage.name: {
            "dip": dip,
            "normalized": scaled,
            "rollbacks": sum(check.rolled_back for check in stage.handover),
            "steps_to_recover": stage.recovered.steps if stage.recovered else None,
        }
        for stage in state.stages
        if stage.handover
        for dip, scaled in [dip_of(state, stage)]
    }
    if matrix is None:
        return {"handover": handovers}
    columns = {
        column.name: {
            "measure": column.measure,
            "held_out": column.held_out,
            "after": dict(zip(matrix.stages, column.values, strict=True)),
        }
        for column in matrix.columns
    }
    cost = {"steps": matrix.steps, "seconds": matrix.seconds, "share": matrix.share}
    return {"handover": handovers, "retention": columns, "retention_cost": cost}
