"""A run's events as a W&B run: points, the table of stages, artifacts and the summary."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rlstages import codes
from rlstages.baselines import value_of
from rlstages.errors import reason_of
from rlstages.events import (
    DemonstrationsReady,
    EpochFinished,
    Event,
    HandoverChecked,
    HandoverRecovered,
    Retained,
    RetentionMeasured,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageCollapsed,
    StageFinished,
)
from rlstages.privacy import without_paths
from rlstages.serialization import to_data
from rlstages.tracking.keeping import kept, matrix_of
from rlstages.tracking.metrics import CLONE_AXIS, STEP_AXIS, STEP_PREFIXES, metrics
from rlstages.tracking.state import RunState, StageState
from rlstages.tracking.wandb_session import group_and_tags, open_run

_ARTIFACT_SECONDS = 10
# A row costs W&B about a millisecond, and A2C finishes a hundred rollouts a second.
_LEAST_SECONDS_BETWEEN_ROLLOUTS = 0.25
_EXIT_CODES = {"reached": 0, "paused": 0, "missed": codes.MISSED, "interrupted": codes.INTERRUPTED}
_COLUMNS: list[str | int] = [
    *("stage", "visit", "kind", "outcome", "steps", "seconds"),
    *("measure", "before", "after", "bound", "threshold"),
]
_RETENTION_COLUMNS: list[str | int] = [
    *("after stage", "environment", "held out", "measure", "value", "normalized", "episodes")
]


class WandbRun:
    """Takes the events of a run from its very first one on, and gives W&B those that it does not have.

    A point's place in W&B (`_step`) is the number of events with metrics before it. A run that was resumed repeats the
    events that came after its checkpoint, and they fall on the same places: what W&B has is never sent twice.

    Args:
        mode: `"online"` or `"offline"`.
        name: Shown for the run.
        project: W&B's project.
        init_seconds: How long the server may take to answer at the start.
        warn: Takes one sentence for a person.

    Attributes:
        url: Where the run can be watched, once it is online.
        points: How many points W&B has.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"],
        name: str,
        project: str,
        init_seconds: float,
        warn: Callable[[str], None],
    ) -> None:
        self.url: str | None = None
        self.points = 0
        self._mode, self._name, self._project, self._init_seconds = mode, name, project, init_seconds
        self._warn = warn
        self._run: Any = None
        self._run_id = ""
        self._state: RunState | None = None
        self._held: tuple[Event, int] | None = None
        self._last_rollout = -1e18
        self._place, self._first = 0, 0
        self._logged: dict[str, Any] = {}
        self._edges = mode == "online"
        self._exit_code = codes.FAULT

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event.payload, RunStarted) and self._run is None:
            self._start(event.payload)
        if self._run is None or self._state is None:
            return
        self._state.take(event)
        place = self._place
        self._place += bool(metrics(event))
        if isinstance(event.payload, RolloutFinished) and self._too_soon(event):
            self._held = event, place
            return
        self._release()
        self._log(event, place)
        stage = self._state.current
        if isinstance(event.payload, DemonstrationsReady):
            self._add_demonstrations(event.payload, event)
        elif isinstance(event.payload, (HandoverChecked, HandoverRecovered, RetentionMeasured)):
            self._run.summary.update(kept(self._state))
        elif isinstance(event.payload, (StageFinished, StageCollapsed)) and stage is not None:
            if isinstance(event.payload, StageFinished):
                self._summarise_stages()
            self._add_policy(event.payload, stage)
        self._exit_code = codes.FAULT
        if isinstance(event.payload, RunFinished):
            self._exit_code = _EXIT_CODES.get(event.payload.outcome, codes.FAULT)
            self._run.summary.update({"outcome": event.payload.outcome, "reason": without_paths(event.payload.reason)})

    def finish(self) -> None:
        """Send what is left and wait until W&B has all of it."""
        if self._run is not None:
            self._release()
            self._run.finish(exit_code=self._exit_code)

    def _start(self, started: RunStarted) -> None:
        self._run_id = started.run_id
        self._state = RunState(started.curriculum)
        config = {
            "curriculum": without_paths(to_data(started.curriculum)),
            "digest": started.curriculum.digest,
            "seed": started.seed,
            "versions": dict(started.versions),
        }
        options = {"name": self._name, "project": self._project, **group_and_tags(started.curriculum.name)}
        self._run = open_run(self._mode, started.run_id, self._init_seconds, config=config, **options)
        self.url = self._run.url
        self._first = self.points = self._run.starting_step
        self._run.define_metric(STEP_AXIS, hidden=True)
        self._run.define_metric(CLONE_AXIS, hidden=True)
        self._run.define_metric("clone/*", step_metric=CLONE_AXIS)
        for prefix in STEP_PREFIXES:
            self._run.define_metric(f"{prefix}/*", step_metric=STEP_AXIS)

    def _too_soon(self, event: Event) -> bool:
        if 0 <= event.time - self._last_rollout < _LEAST_SECONDS_BETWEEN_ROLLOUTS:
            return True
        self._last_rollout = event.time
        self._held = None
        return False

    def _release(self) -> None:
        """Log the rollout that was held back, so that no stage lacks its last one."""
        held, self._held = self._held, None
        if held is not None:
            self._log(*held)

    def _log(self, event: Event, place: int) -> None:
        row: dict[str, Any] = dict(metrics(event))
        if not row or place < self._first:
            return
        assert self._state is not None
        if isinstance(event.payload, EpochFinished):
            row[CLONE_AXIS] = self._state.epochs
        if isinstance(event.payload, (StageFinished, StageCollapsed)):
            row["stages"] = _table(self._state)
        if isinstance(event.payload, RetentionMeasured):
            row["retention_matrix"] = _matrix_table(self._state)
        where = {STEP_AXIS: event.global_step, "stage/index": event.stage_index, "stage/name": event.stage_name}
        self._run.log({**row, **where, "_timestamp": event.time}, step=place, commit=True)
        self.points = place + 1

    def _summarise_stages(self) -> None:
        assert self._state is not None
        finished = [stage for stage in self._state.stages if stage.finished]
        last = finished[-1]
        score = last.finished.after if last.finished else None
        self._run.summary.update(
            {
                "verdicts": {stage.name: _verdict(stage) for stage in finished},
                "final/stages_reached": sum(bool(s.finished and s.finished.outcome != "missed") for s in finished),
                "final/stage": last.name,
                "final/return": score.mean_return if score else None,
                "final/success": score.success if score else None,
            }
        )

    def _add_demonstrations(self, shown: DemonstrationsReady, event: Event) -> None:
        about = {
            "digest": shown.digest,
            "parent": None,
            "stage": event.stage_name,
            "source": shown.source,
            "score": to_data(shown.score, nan_as_null=True),
            "held_out_episodes": shown.held_out_episodes,
        }
        self._add(shown.file, "demonstrations", about)

    def _add_policy(self, ended: StageFinished | StageCollapsed, stage: StageState) -> None:
        about: dict[str, Any] = {
            "digest": ended.digest,
            "parent": ended.parent,
            "stage": stage.name,
            "visit": ended.visit,
        }
        if isinstance(ended, StageCollapsed):
            about |= {"outcome": "collapsed", "decline": to_data(ended.decline, nan_as_null=True)}
        else:
            about |= {
                "outcome": ended.outcome,
                "score": to_data(ended.after, nan_as_null=True),
                "verdict": to_data(ended.verdict, nan_as_null=True),
            }
        self._use(ended.parent)
        self._add(ended.policy, "policy", about)

    def _add(self, file: str, kind: str, about: dict[str, Any]) -> None:
        import wandb

        path = Path(file)
        if not path.is_file() or not path.resolve().is_relative_to(Path.cwd()):
            self._warn(f"W&B gets no {kind} of stage {about['stage']!r}: there is no file {path.name}.")
            return
        assert self._state is not None
        name = _artifact_name(f"{self._state.curriculum.name}-{about['stage']}-{kind}")
        artifact = wandb.Artifact(name, type=kind, metadata=without_paths({**about, "run": self._run_id}))
        # The file stays where it is and as it is: no copy in W&B's staging area or cache.
        artifact.add_file(file, name=path.name, policy="immutable", skip_cache=True)
        try:
            self._run.log_artifact(artifact)
        except Exception as error:
            # Such as a name that the project has for something else: the points are worth more than the file.
            why = without_paths(reason_of(error))
            self._warn(f"W&B gets no {kind} of stage {about['stage']!r} ({why}).")
            return
        self._logged[about["digest"]] = artifact

    def _use(self, digest: str | None) -> None:
        """Draw the edge from an artifact of this session to what is made from it; metadata name the parent anyway."""
        parent = self._logged.get(digest or "")
        if not self._edges or parent is None:
            return
        try:
            parent.wait(timeout=_ARTIFACT_SECONDS)
            self._run.use_artifact(parent)
        except Exception:
            self._edges = False


def _table(state: RunState) -> Any:
    import wandb

    rows = [_table_row(state.stages[index], ended) for (index, _), ended in state.ends.items()]
    return wandb.Table(columns=_COLUMNS, data=rows)


def _matrix_table(state: RunState) -> Any:
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


def _table_row(stage: StageState, ended: StageFinished | StageCollapsed) -> list[Any]:
    head = [stage.name, ended.visit, stage.kind]
    tail = [ended.stage_steps, round(ended.seconds, 1)]
    if isinstance(ended, StageCollapsed):
        # These numbers are of the stage before, which is what was lost.
        decline = ended.decline
        return [*head, "collapsed", *tail, decline.measure, None, decline.value, decline.bound, decline.level]
    verdict = ended.verdict
    return [
        *head,
        ended.outcome,
        *tail,
        stage.measure_of(ended.after),
        stage.measured(ended.before),
        stage.measured(ended.after),
        verdict.bound if verdict else None,
        verdict.threshold if verdict else stage.threshold,
    ]


def _verdict(stage: StageState) -> dict[str, Any]:
    assert stage.finished is not None
    verdict = to_data(stage.finished.verdict, nan_as_null=True) or {}
    kept = {key: verdict[key] for key in ("value", "bound", "threshold", "episodes") if key in verdict}
    return {"outcome": stage.finished.outcome, "reason": without_paths(stage.finished.reason), **kept}


def _artifact_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:128]
