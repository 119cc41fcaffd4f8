"""Tables and charts of a run for W&B."""

from __future__ import annotations

from typing import Any

from rlstages.events import Event, Retained, RolloutFinished, StageCollapsed, StageEnd
from rlstages.specs.criteria.baselines import value_of
from rlstages.tracking.retention_table import matrix_of
from rlstages.tracking.state import RunState, StageState

_COLUMNS: list[str | int] = [
    *("stage", "visit", "kind", "outcome", "steps", "seconds"),
    *("measure", "before", "after", "bound", "threshold"),
]
_RETENTION_COLUMNS: list[str | int] = [
    *("after stage", "environment", "held out", "measure", "value", "normalized", "episodes")
]
_MOST_POINTS = 500


class GateCurve:
    """What gates look at, rollout by rollout, and what they ask for: two lines of one chart."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float, float]] = []
        self._seen, self._every = 0, 1

    def take(self, event: Event) -> None:
        """Follow one event; of a long run every second, fourth, ... rollout is kept."""
        payload = event.payload
        if not isinstance(payload, RolloutFinished) or payload.value is None:
            return
        if self._seen % self._every == 0:
            self._points.append((event.global_step, payload.value, payload.threshold))
        self._seen += 1
        if len(self._points) > _MOST_POINTS:
            self._points, self._every = self._points[::2], 2 * self._every

    def chart(self) -> dict[str, Any]:
        """Return the chart by its name, or nothing if there was no rollout yet."""
        import wandb

        if not self._points:
            return {}
        steps, values, thresholds = (list(part) for part in zip(*self._points, strict=True))
        lines = wandb.plot.line_series(
            steps, [values, thresholds], keys=["score", "threshold"], title="score and threshold", xname="global_step"
        )
        return {"gate": lines}


def stages_table(state: RunState) -> Any:
    """Return the table of stages: a row for every visit that has ended."""
    import wandb

    rows = [_table_row(state.stages[index], ended) for (index, _), ended in state.ends.items()]
    return wandb.Table(columns=_COLUMNS, data=rows)


def retention_table(state: RunState) -> Any:
    """Return the table of retention: a row for every policy and environment."""
    import wandb

    matrix = matrix_of(state)
    assert matrix is not None
    held_out = {column.name for column in matrix.columns if column.held_out}
    rows = [
        [stage, cell.environment, cell.environment in held_out, cell.measure, value, cell.normalized, episodes]
        for stage, cells in zip(matrix.stages, matrix.cells, strict=True)
        for cell in cells
        for value, episodes in [_value_and_episodes(cell)]
    ]
    return wandb.Table(columns=_RETENTION_COLUMNS, data=rows)


def _value_and_episodes(cell: Retained) -> tuple[float | None, int]:
    return (None, 0) if cell.score is None else (value_of(cell.score, cell.measure), cell.score.episodes)


def _table_row(stage: StageState, ended: StageEnd) -> list[Any]:
    row = [stage.name, ended.visit, stage.kind, ended.outcome, ended.stage_steps, round(ended.seconds, 1)]
    if isinstance(ended, StageCollapsed):
        # These numbers are of the stage before, which is what was lost.
        decline = ended.decline
        return [*row, decline.measure, None, decline.value, decline.bound, decline.level]
    before, after, verdict = stage.measured(ended.before), stage.measured(ended.after), ended.verdict
    limits = [verdict.bound, verdict.threshold] if verdict else [None, stage.threshold]
    return [*row, stage.measure_of(ended.after), before, after, *limits]
