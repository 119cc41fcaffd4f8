"""The one loop over stages, from an empty or interrupted run directory to the last policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstages.environments.monitor import FIRST
from rlstages.environments.watchdog import watching
from rlstages.events import (
    Event,
    Follower,
    Payload,
    RunFinished,
    RunStarted,
    StageFinished,
    Warned,
)
from rlstages.learners.algorithms.on_policy.choice import choose_engine
from rlstages.learners.learner import Learner
from rlstages.play.retention import Retention
from rlstages.specs.references import sources
from rlstages.specs.stages.base import StageSpec
from rlstages.stages.context import StageContext
from rlstages.stages.path import (
    Way,
    end_of,
    parent_of,
    policy_file,
    start_of,
    visit_of,
    way_from,
)
from rlstages.stages.runner import Result, StageRunner, runner_of
from rlstages.storage.record import versions
from rlstages.storage.run_directory import RunDirectory, read_events
from rlstages.tracking import Extra, Track, open_trackers
from rlstages.training.stopping import add_place, fault_of, interrupts

CHECKPOINT_SECONDS = 10.0
Watch = Callable[[Learner], str | None]
"""Looks at the learner before every step, without changing it; a sentence that it returns pauses the run there."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        path: The run directory.
        outcome: `"reached"` the end, `"missed"` a threshold, `"interrupted"`, or `"paused"` by who watches it.
        reason: One sentence.
        stages: What each finished stage ended with, by name.
    """

    path: Path
    outcome: str
    reason: str
    stages: Mapping[str, StageFinished]


class Trainer:
    """A run while it is trained: the learner, the stage under way, and who follows."""

    def __init__(
        self, directory: RunDirectory, learner: Learner, trust_pickle: bool, watch: Watch | None, resumed: bool
    ) -> None:
        self.directory, self.learner, self.resumed = directory, learner, resumed
        self.curriculum, self.seed = directory.record.curriculum, directory.record.seed
        self.trust_pickle, self.watch = trust_pickle, watch
        self._pause: str | None = None
        self.stage = 0
        self.way: Way = ()
        self.runner: StageRunner | None = None
        self.seconds = 0.0
        self.finished: dict[str, StageFinished] = {}
        self.retention = Retention(self.curriculum, learner, self.seed, self.emit, trust_pickle)
        self._notes: list[str] = []
        self._trackers: list[Follower] = []
        self._saves = 1
        self._saved_step = 0
        self._warned: set[str] = set()

    def tell(self, sentences: Sequence[str]) -> None:
        """Have a person told something as soon as someone follows the run."""
        self._notes += sentences

    def train(
        self, track: Track, track_also: Sequence[Extra], console: bool, trackers: Sequence[Follower]
    ) -> RunResult:
        """Run stage after stage.

        Raises:
            Fault: If it cannot go on; the sentence says from which step it goes on when it is resumed.
            InputError: Likewise, for what a person can mend, such as an expert that fails.
        """
        with ExitStack() as stack:
            interrupted = stack.enter_context(interrupts())
            stack.enter_context(watching())
            code = sorted(sources().values()) if "code" in track_also else []
            more: dict[str, Any] = {"system": "system" in track_also, "code": code}
            opened = open_trackers(self.directory, track, console, self._notes.append, **more)
            followers: list[Follower] = [*opened, *trackers]
            for tracker in followers:
                stack.callback(self._let_go, tracker)
                self._trackers.append(tracker)
            try:
                return self._train(interrupted)
            except BaseException as error:
                fault = fault_of(error, self.directory.path)
                self._tell_failure(error if fault is None else fault)
                if fault is None:
                    raise
                add_place(fault, self._saved_step, self.directory.path, self._saves > 1)
                if fault is error:
                    raise
                raise fault from error

    def _train(self, interrupted: threading.Event) -> RunResult:
        self._begin()
        outcome, reason = "reached", "The curriculum is done."
        while self.stage < len(self.curriculum.stages) or self.retention.is_due:
            if self.retention.is_due:
                self._score_everywhere(interrupted)
                if not self.retention.is_due:
                    continue
                outcome, reason = "interrupted", "Interrupted between two stages; resume goes on from here."
                break
            result = self._run_stage(interrupted)
            if result is None and self._pause is not None:
                outcome, reason = "paused", self._pause
                break
            if result is None:
                outcome, reason = "interrupted", f"Interrupted in stage {self.spec.name!r}; resume goes on from here."
                break
            if result.outcome == "collapsed":
                self._leave_stage(self.stage - 1)
                continue
            if result.outcome == "missed" and not self.spec.goes_on_when_missed:
                outcome, reason = "missed", f"Stage {self.spec.name!r}: {result.reason}"
                break
            self.retention.begin(self.stage, result.after)
            self._leave_stage(self.stage + 1)
        else:
            self._paused()
        self.emit(RunFinished(outcome, reason))
        self.save()
        return RunResult(self.directory.path, outcome, reason, dict(self.finished))

    def _tell_failure(self, error: BaseException) -> None:
        """Let the log and the trackers say why the run stopped; resuming cuts the log back to the last checkpoint."""
        reason = "Stopped at once." if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        with suppress(Exception):
            self.emit(RunFinished("failed", reason))

    @property
    def spec(self) -> StageSpec:
        """The stage under way."""
        return self.curriculum.stages[self.stage]

    def emit(self, payload: Payload) -> None:
        """Write an event down and tell everyone who follows; what is found again and again is told once in a run."""
        if isinstance(payload, Warned) and FIRST in payload.message:
            kind = payload.message.partition(FIRST)[0]
            if kind in self._warned:
                return
            self._warned.add(kind)
        index = self.stage - 1 if self.retention.is_due else self.stage
        if index == len(self.curriculum.stages) or isinstance(payload, (RunStarted, RunFinished)):
            index = -1
        name = self.curriculum.stages[index].name if index >= 0 else ""
        event = Event(payload, self.learner.global_step, index, name)
        self.directory.append(event)
        for tracker in self._trackers:
            tracker(event)

    def save(self, end: bool = False) -> None:
        """Write a checkpoint, which may be the end of a stage."""
        self._saves += 1
        state = state_of(
            self.learner, self._notes, self.runner, self.retention, self.stage, self.way, self.seconds, self._saves
        )
        self.directory.save(f"{self._saves:08d}", state, end)
        self._saved_step = self.learner.global_step

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.stage, self._saves = state["stage"], state["saves"]
        self._notes = [str(note) for note in state["notes"]]
        self.way = way_from(state["way"], self.curriculum.stages)
        self.seconds, self.retention.seconds = state["seconds"]["stage"], state["seconds"]["retention"]
        if state["retention"] is not None:
            self.retention.load_state_dict(state["retention"])
        for event in read_events(self.directory.path):
            if isinstance(event.payload, StageFinished):
                self.finished[event.stage_name] = event.payload
            elif isinstance(event.payload, Warned):
                self._warned.add(event.payload.message.partition(FIRST)[0])
        if state["runner"] is not None:
            self.learner.load_state_dict(state["learner"])
            self.runner = self._make_runner()
            self.runner.load_state_dict(state["runner"])
        # Making the runner may draw random numbers, so the learner's state, which holds the generators', comes last.
        self.learner.load_state_dict(state["learner"])
        self._saved_step = self.learner.global_step

    # --- pieces ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Say that the run starts."""
        record = self.directory.record
        policy = self.learner.policy
        engine = choose_engine(self.curriculum.agent, policy.observation_space, policy.action_space)
        found = versions(record.versions)
        self.emit(RunStarted(record.run_id, self.curriculum, self.seed, found, self.resumed, str(engine)))
        self._flush_notes()

    def _run_stage(self, interrupted: threading.Event) -> Result | None:
        """Step the stage until it ends; `None` if the run is interrupted or paused first."""
        if self.runner is None:
            self._enter_stage()
        assert self.runner is not None
        saved = started = time.monotonic()
        try:
            while self.runner.result is None and not interrupted.is_set() and not self._paused():
                self.runner.step()
                self._flush_notes()
                now = time.monotonic()
                self.seconds, started = self.seconds + now - started, now
                if now - saved >= CHECKPOINT_SECONDS and self.runner.result is None:
                    self.save()
                    saved = time.monotonic()
            if self.runner.result is not None:
                self._report(self.runner.result)
            return self.runner.result
        finally:
            self.runner.close()

    def _paused(self) -> bool:
        """Let the watch look at the learner; whether it asks to pause."""
        if self.watch is not None:
            self._pause = self.watch(self.learner)
        return self._pause is not None

    def _enter_stage(self) -> None:
        self.way += (self.stage,)
        self.runner = self._make_runner()
        self.seconds = 0.0
        self.emit(start_of(self.spec, visit_of(self.way)))

    def _make_runner(self) -> StageRunner:
        place = self.directory.path, self.curriculum.stages, self.way
        context = StageContext(self.learner, self.seed, self.emit, *place, self.trust_pickle)
        runner: StageRunner = runner_of(self.spec)(context)
        return runner

    def _report(self, result: Result) -> None:
        """Keep the policy that leaves the stage and say how the stage ended."""
        assert self.runner is not None
        stages = self.curriculum.stages
        digest = self.learner.save_policy(self.directory.path / policy_file(stages, self.way))
        parent = result.parent or parent_of(self.directory.path, stages, self.way)
        end = end_of(result, stages, self.way, self.runner.stage_steps, self.seconds, digest, parent)
        if isinstance(end, StageFinished):
            self.finished[self.spec.name] = end
        self.emit(end)

    def _leave_stage(self, to: int) -> None:
        self.runner = None
        self.stage = to
        self.save(end=True)

    def _score_everywhere(self, interrupted: threading.Event) -> None:
        """Score the policy that left a stage in all environments, until that is done or the run is interrupted."""
        saved = time.monotonic()
        try:
            while self.retention.is_due and not interrupted.is_set():
                self.retention.step()
                if time.monotonic() - saved >= CHECKPOINT_SECONDS and self.retention.is_due:
                    self.save()
                    saved = time.monotonic()
        finally:
            self.retention.close()

    def _let_go(self, tracker: Follower) -> None:
        """Close a tracker; what it warns of then is for those that still follow, as the log has ended."""
        self._trackers.remove(tracker)
        getattr(tracker, "close", lambda: None)()
        while self._notes:
            note = Event(Warned(self._notes.pop(0)), self.learner.global_step)
            for follower in self._trackers:
                follower(note)

    def _flush_notes(self) -> None:
        while self._notes:
            self.emit(Warned(self._notes.pop(0)))


def state_of(
    learner: Learner,
    notes: Sequence[str] = (),
    runner: StageRunner | None = None,
    retention: Retention | None = None,
    stage: int = 0,
    way: Way = (),
    seconds: float = 0.0,
    saves: int = 1,
) -> dict[str, Any]:
    """Return all that a run goes on from, what a person is still to be told included."""
    return {
        "notes": list(notes),
        "stage": stage,
        "way": list(way),
        "seconds": {"stage": seconds, "retention": 0.0 if retention is None else retention.seconds},
        "saves": saves,
        "learner": learner.state_dict(),
        "runner": None if runner is None else runner.state_dict(),
        "retention": None if retention is None else retention.state_dict(),
    }
