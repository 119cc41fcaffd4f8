"""Weights & Biases: one run per curriculum and seed, a mirror of the event log that may fail without harm."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from rlstages.events import (
    DemonstrationsReady,
    EpochFinished,
    Event,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageFinished,
)
from rlstages.serialization import to_data
from rlstages.tracking.metrics import CLONE_AXIS, STEP_AXIS, STEP_PREFIXES, metrics
from rlstages.tracking.mode import tracking_mode as tracking_mode
from rlstages.tracking.privacy import without_paths
from rlstages.tracking.state import RunState, StageState
from rlstages.tracking.wandb_session import INIT_SECONDS, environment, open_run

_ARTIFACT_SECONDS = 10
# A row costs W&B about a millisecond, and A2C finishes a hundred rollouts a second.
_LEAST_SECONDS_BETWEEN_ROLLOUTS = 0.25
_EXIT_CODES = {"reached": 0, "missed": 3, "interrupted": 130}
_COLUMNS: list[str | int] = [
    *("stage", "kind", "outcome", "steps", "seconds"),
    *("measure", "before", "after", "bound", "threshold"),
]
_warn = logging.getLogger(__name__).warning


class WandbTracker:
    """Mirrors a run's events to W&B; see `wandb_tracker`.

    Attributes:
        url: Where the run can be watched, once it is online.
    """

    def __init__(
        self,
        directory: Path,
        mode: Literal["online", "offline"],
        identity: Mapping[str, str | None],
        history: Iterable[Event],
        warn: Callable[[str], None],
        init_seconds: float,
    ) -> None:
        self.url: str | None = None
        self._directory, self._mode, self._identity = directory.absolute(), mode, identity
        self._history = list(history)
        self._warn, self._init_seconds = warn, init_seconds
        self._run: Any = None
        self._state: RunState | None = None
        self._off = False
        self._held: Event | None = None
        self._last_rollout = -1e18
        self._logged: dict[str, Any] = {}
        self._edges = False
        self._exit_code = 1

    def __call__(self, event: Event) -> None:
        """Mirror one event."""
        if not self._off:
            self._guarded(lambda: self._take(event))

    def close(self) -> None:
        """Finish the run; waits at most a minute for uploads."""
        if self._run is None:
            return
        if not self._off:
            self._guarded(self._release)
        self._guarded(lambda: self._run.finish(exit_code=self._exit_code))
        self._run, self._off = None, True

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            with environment(self._directory):
                work()
        except Exception as error:
            already, self._off = self._off, True
            if not already:
                why = without_paths(" ".join(str(error).split()))
                self._warn(
                    f"W&B is off for the rest of this run ({type(error).__name__}: {why}); nothing else changes."
                )

    def _take(self, event: Event) -> None:
        if isinstance(event.payload, RunStarted) and self._run is None:
            self._start(event.payload)
        if self._run is None or self._state is None:
            return
        self._state.take(event)
        if isinstance(event.payload, RolloutFinished) and self._too_soon(event):
            self._held = event
            return
        self._release()
        self._log(event)
        stage = self._state.current
        if isinstance(event.payload, DemonstrationsReady):
            self._add_demonstrations(event.payload, event)
        elif isinstance(event.payload, StageFinished) and stage is not None:
            self._run.log({"stages": _table(self._state), **self._place(event)})
            self._summarise_stages()
            self._add_policy(event.payload, stage)
        elif isinstance(event.payload, RunFinished):
            self._exit_code = _EXIT_CODES.get(event.payload.outcome, 1)
            self._run.summary.update({"outcome": event.payload.outcome, "reason": without_paths(event.payload.reason)})

    def _start(self, started: RunStarted) -> None:
        self._state = RunState(started.curriculum, self._history)
        self._history.clear()
        config = {
            "curriculum": without_paths(to_data(started.curriculum)),
            "digest": started.curriculum.digest,
            "seed": started.seed,
            "versions": dict(started.versions),
        }
        options = {**self._identity, "group": started.curriculum.name, "config": config}
        self._run, online = open_run(self._directory, self._mode, options, self._init_seconds, self._warn)
        self.url, self._edges = self._run.url, online
        self._run.define_metric(STEP_AXIS, hidden=True)
        self._run.define_metric(CLONE_AXIS, hidden=True)
        self._run.define_metric("clone/*", step_metric=CLONE_AXIS)
        for prefix in STEP_PREFIXES:
            self._run.define_metric(f"{prefix}/*", step_metric=STEP_AXIS)

    def _too_soon(self, event: Event) -> bool:
        if abs(event.time - self._last_rollout) < _LEAST_SECONDS_BETWEEN_ROLLOUTS:
            return True
        self._last_rollout = event.time
        self._held = None
        return False

    def _release(self) -> None:
        """Log the rollout that was held back, so that no stage lacks its last one."""
        held, self._held = self._held, None
        if held is not None:
            self._log(held)

    def _log(self, event: Event) -> None:
        numbers = metrics(event)
        if isinstance(event.payload, EpochFinished) and self._state:
            numbers[CLONE_AXIS] = self._state.epochs
        if numbers:
            self._run.log({**numbers, **self._place(event)})

    def _place(self, event: Event) -> dict[str, Any]:
        return {STEP_AXIS: event.global_step, "stage/index": event.stage_index, "stage/name": event.stage_name}

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

    def _add_policy(self, ended: StageFinished, stage: StageState) -> None:
        about = {
            "digest": ended.digest,
            "parent": ended.parent,
            "stage": stage.name,
            "outcome": ended.outcome,
            "score": to_data(ended.after, nan_as_null=True),
            "verdict": to_data(ended.verdict, nan_as_null=True),
        }
        self._use(ended.parent)
        self._add(ended.policy, "policy", about)

    def _add(self, file: str, kind: str, about: dict[str, Any]) -> None:
        import wandb

        path = self._directory / file
        if not path.is_file():
            self._warn(f"W&B gets no {kind} of stage {about['stage']!r}: there is no file {path.name}.")
            return
        assert self._state is not None
        name = _artifact_name(f"{self._state.curriculum.name}-{about['stage']}-{kind}")
        artifact = wandb.Artifact(name, type=kind, metadata=without_paths({**about, "run": self._identity["id"]}))
        # The file stays where it is and as it is: no copy in W&B's staging area or cache.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)
        self._logged[about["digest"]] = artifact

    def _use(self, digest: str | None) -> None:
        """Draw the edge from an artifact of this session to what is made from it."""
        parent = self._logged.get(digest or "")
        if not self._edges or parent is None:
            return
        try:
            parent.wait(timeout=_ARTIFACT_SECONDS)
            self._run.use_artifact(parent)
        except Exception as error:
            self._edges = False
            self._warn(
                f"W&B's graph of artifacts stays without edges ({type(error).__name__}); parents are in metadata."
            )


def wandb_tracker(
    directory: Path,
    mode: Literal["online", "offline"],
    *,
    run_id: str,
    name: str,
    project: str = "rlstages",
    resumed: bool = False,
    history: Iterable[Event] = (),
    warn: Callable[[str], None] = _warn,
    init_seconds: float = INIT_SECONDS,
) -> WandbTracker:
    """Return a tracker that mirrors a run to W&B.

    It never asks for anything and never raises: when W&B does, it warns once and turns itself off; when the server
    cannot be reached at the start, it goes on offline. All files are in `directory/wandb`.

    Args:
        directory: The run directory; files named in events are relative to it.
        mode: `"online"` or `"offline"`.
        run_id: W&B's id of the run.
        name: Shown for the run.
        project: W&B's project.
        resumed: Whether the run goes on from an earlier session.
        history: Events of earlier sessions, for a resumed run: `read_events(directory)`.
        warn: Takes one sentence for a person.
        init_seconds: How long the server may take to answer at the start.
    """
    identity = {"id": run_id, "name": name, "project": project, "resume": "allow" if resumed else None}
    return WandbTracker(directory, mode, identity, history, warn, init_seconds)


def _table(state: RunState) -> Any:
    import wandb

    return wandb.Table(columns=_COLUMNS, data=[_table_row(stage) for stage in state.stages if stage.finished])


def _table_row(stage: StageState) -> list[Any]:
    ended = stage.finished
    assert ended is not None
    verdict = ended.verdict
    return [
        stage.name,
        stage.kind,
        ended.outcome,
        ended.stage_steps,
        round(ended.seconds, 1),
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
