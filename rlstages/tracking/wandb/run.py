"""A W&B run from the events of a run: points, tables, the summary and alerts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from rlstages.errors import ExitCode
from rlstages.events import (
    Event,
    HandoverChecked,
    HandoverRecovered,
    Retained,
    RetentionMeasured,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageCollapsed,
    StageEnd,
    StageFinished,
    StageStarted,
)
from rlstages.events.payload import STEP_AXIS
from rlstages.events.privacy import without_paths
from rlstages.specs.criteria.baselines import value_of
from rlstages.specs.serialization import to_data
from rlstages.storage.record import RunRecord
from rlstages.tracking.metrics import CLONE_AXIS, STEP_PREFIXES, SUMMARIES, Points
from rlstages.tracking.retention_table import kept, matrix_of
from rlstages.tracking.state import RunState, StageState
from rlstages.tracking.wandb.artifacts import Artifacts
from rlstages.tracking.wandb.session import FOLDER, belonging, config_of, open_run

# A row costs W&B about a millisecond, and A2C finishes a hundred rollouts a second.
_LEAST_SECONDS = 0.25
_NEWS_SECONDS = 600
_MOST_OF_A_TITLE = 63
_ENDS = ("reached", "missed", "paused")
_EXIT_CODES = {"reached": 0, "paused": 0, "missed": ExitCode.MISSED, "interrupted": ExitCode.INTERRUPTED}
_COLUMNS: list[str | int] = [
    *("stage", "visit", "kind", "outcome", "steps", "seconds"),
    *("measure", "before", "after", "bound", "threshold"),
]
_RETENTION_COLUMNS: list[str | int] = [
    *("after stage", "environment", "held out", "measure", "value", "normalized", "episodes")
]
_MOST_POINTS = 500


class WandbRun:
    """Takes all events of a run, and sends W&B those that it does not have.

    A point's place in W&B (`_step`) is the number of events with metrics before it. A run that was resumed repeats the
    events that came after its checkpoint, and they fall on the same places: what W&B has is never sent twice.

    Args:
        mode: `"online"` or `"offline"`.
        record: What `run.json` says, if there is one.
        opened: Takes the address of the run, or its folder, once W&B has it.
        warn: Function that takes one sentence for the user.
        project: W&B's project.
        init_seconds: Maximum time in seconds for the first answer of the server.
        here: Working directory of the training, to which paths in its curriculum are relative.
        system: Whether to measure the machine.
        code: Files of the curriculum to send.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"],
        record: RunRecord | None,
        opened: Callable[[str | None, str | None], None],
        warn: Callable[[str], None],
        *,
        project: str,
        init_seconds: float,
        here: str,
        system: bool = False,
        code: Sequence[str] = (),
    ) -> None:
        self._online, self._record, self._opened, self._warn = mode == "online", record, opened, warn
        self._here, self._code = Path(here), code
        self._options = {"mode": mode, "project": project, "init_seconds": init_seconds, "system": system}
        self._run: Any = None
        self._state: RunState | None = None
        self._artifacts: Artifacts | None = None
        self._log: PointLog | None = None
        self._exit_code: int = ExitCode.FAULT

    @property
    def points(self) -> int:
        """How many points W&B has."""
        return 0 if self._log is None else self._log.points

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event.payload, RunStarted) and self._run is None:
            self._start(event.payload)
        if self._log is None or self._state is None or self._artifacts is None:
            return
        payload = event.payload
        self._state.take(event)
        place = self._log.take(event)
        if place is None:
            return
        self._artifacts.take(event)
        self._exit_code = ExitCode.FAULT
        if isinstance(payload, (HandoverChecked, HandoverRecovered, RetentionMeasured)):
            self._run.summary.update(kept(self._state))
        elif isinstance(payload, StageStarted):
            self._artifacts.release()
        elif isinstance(payload, StageEnd):
            if payload.outcome != "collapsed":
                self._run.summary.update(_summary(self._state))
            if place >= self._log.first:
                self._alert(event, payload)
        elif isinstance(payload, RunFinished):
            self._artifacts.release(final=payload.outcome in _ENDS)
            self._exit_code = _EXIT_CODES.get(payload.outcome, ExitCode.FAULT)
            self._run.summary.update({"outcome": payload.outcome, "reason": without_paths(payload.reason)})

    def finish(self) -> None:
        """Send the rest, and wait until W&B has everything."""
        if self._log is not None and self._artifacts is not None:
            self._log.release()
            self._artifacts.release()
            self._run.finish(exit_code=self._exit_code)

    def _start(self, started: RunStarted) -> None:
        record, name = self._record, started.curriculum.name
        self._state = RunState(started.curriculum)
        config = config_of(started, record.parameters if record else {})
        about = belonging(name, record.notes if record else None, record.tags if record else ())
        options = {**self._options, "name": Path.cwd().name, "config": config, **about}
        self._run = open_run(run_id=started.run_id, **options)
        folder = Path(self._run.settings.sync_dir).name
        self._opened(self._run.url if self._online else None, None if self._online else f"{FOLDER}/{folder}")
        self._log = PointLog(self._run, self._state)
        self._run.define_metric(STEP_AXIS, hidden=True)
        self._run.define_metric(CLONE_AXIS, hidden=True)
        for section, axis in (("clone", CLONE_AXIS), *((section, STEP_AXIS) for section in STEP_PREFIXES)):
            self._run.define_metric(f"{section}/*", step_metric=axis)
            for metric, summary in SUMMARIES.items():
                if metric.startswith(f"{section}/"):
                    self._run.define_metric(metric, step_metric=axis, summary=summary)
        self._artifacts = Artifacts(self._run, self._state, started.run_id, self._record, self._online, self._warn)
        self._artifacts.use_other_runs(self._here)
        self._artifacts.add_code(self._code)

    def _alert(self, event: Event, ended: StageEnd) -> None:
        """Tell the user of a stage that went wrong just now; what is uploaded later is no news."""
        news = time.time() - event.time <= _NEWS_SECONDS
        if self._online and news and ended.outcome in ("missed", "collapsed"):
            title = f"{ended.outcome}: {event.stage_name}"[:_MOST_OF_A_TITLE]
            self._run.alert(title=title, text=without_paths(ended.reason), level="WARN")


class PointLog:
    """Sends W&B those points of a run that it does not have.

    Args:
        run: W&B's.
        state: What the events so far have told.

    Attributes:
        first: The first place that W&B had no point for when the run was opened.
        points: How many points W&B has.
    """

    def __init__(self, run: Any, state: RunState) -> None:
        self.first = self.points = run.starting_step
        self._run, self._state = run, state
        self._gate = GateCurve()
        self._numbers, self._sections = Points(), {"clone", *STEP_PREFIXES}
        self._held: tuple[Event, dict[str, float], int] | None = None
        self._last_time = -1e18
        self._place = 0

    def take(self, event: Event) -> int | None:
        """Log an event; return its place, or `None` if it is held back: of what comes often, some are left out."""
        self._gate.take(event)
        numbers, place = self._numbers(event), self._place
        self._place += bool(numbers)
        if event.payload.often(self._state.place_of(event)) > 1 and self._too_soon(event):
            self._held = event, numbers, place
            return None
        self.release()
        self._send(event, numbers, place)
        return place

    def _too_soon(self, event: Event) -> bool:
        if 0 <= event.time - self._last_time < _LEAST_SECONDS:
            return True
        self._last_time = event.time
        self._held = None
        return False

    def release(self) -> None:
        """Log the rollout that was held back, so that each stage has its last one."""
        held, self._held = self._held, None
        if held is not None:
            self._send(*held)

    def _send(self, event: Event, numbers: dict[str, float], place: int) -> None:
        if not numbers or place < self.first:
            return
        self._define(numbers, event.payload.axis)
        row: dict[str, Any] = {**numbers}
        if isinstance(event.payload, StageEnd):
            row["stages"] = stages_table(self._state)
            row |= self._gate.chart()
        if isinstance(event.payload, RetentionMeasured):
            row["retention_matrix"] = retention_table(self._state)
        where = {STEP_AXIS: event.global_step, "stage/index": event.stage_index, "stage/name": event.stage_name}
        self._run.log({**row, **where, "_timestamp": event.time}, step=place, commit=True)
        self.points = place + 1

    def _define(self, names: Iterable[str], axis: str) -> None:
        """Tell W&B the axis of sections that other packages' events bring."""
        for section, slash, _ in (name.partition("/") for name in names):
            if section not in self._sections:
                self._sections.add(section)
                if axis != STEP_AXIS:
                    self._run.define_metric(axis, hidden=True)
                self._run.define_metric(f"{section}/*" if slash else section, step_metric=axis)


def _summary(state: RunState) -> dict[str, Any]:
    """Return the outcomes of the finished stages; the last one is the run's result so far."""
    finished = [(stage, stage.finished) for stage in state.stages if stage.finished]
    last, end = finished[-1]
    return {
        "verdicts": {stage.name: _verdict(stage, end) for stage, end in finished},
        "final/stages_reached": sum(end.outcome != "missed" for _, end in finished),
        "final/stage": last.name,
        "final/return": end.after.mean_return if end.after else None,
        "final/success": end.after.success if end.after else None,
    }


def _verdict(stage: StageState, end: StageFinished) -> dict[str, Any]:
    verdict = to_data(end.verdict, nan_as_null=True) or {}
    kept = {key: verdict[key] for key in ("value", "bound", "threshold", "episodes") if key in verdict}
    scores = {"before": stage.measured(end.before), "after": stage.measured(end.after)}
    return {"outcome": end.outcome, "reason": without_paths(end.reason), **scores, **kept}


class GateCurve:
    """The chart of the value that gates test and of their threshold, rollout by rollout."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float, float]] = []
        self._seen, self._every = 0, 1

    def take(self, event: Event) -> None:
        """Take an event. In a long run, only every second, fourth, ... rollout is kept."""
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
        # These numbers belong to the stage before, whose skill was lost.
        decline = ended.decline
        return [*row, decline.measure, None, decline.value, decline.bound, decline.level]
    before, after, verdict = stage.measured(ended.before), stage.measured(ended.after), ended.verdict
    limits = [verdict.bound, verdict.threshold] if verdict else [None, stage.threshold]
    return [*row, stage.measure_of(ended.after), before, after, *limits]
