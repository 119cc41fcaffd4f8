"""The session of a run: writing events, notes and checkpoints, and calling trackers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstages.environments.reports import FIRST
from rlstages.environments.watchdog import watching
from rlstages.events import Event, Follower, Pause, Payload, RunFinished, RunStarted, StageFinished, Warned
from rlstages.learners.learner import Learner
from rlstages.specs.references import sources
from rlstages.storage.run_directory import RunDirectory, read_events
from rlstages.tracking import Extra, Track, open_trackers
from rlstages.training.stopping import add_place, fault_of, interrupts


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        path: Run directory.
        outcome: `"reached"` the end, `"missed"` a threshold, `"interrupted"`, or `"paused"` by a tracker or watch.
        reason: One sentence.
        stages: What each finished stage ended with, by name.
    """

    path: Path
    outcome: str
    reason: str
    stages: Mapping[str, StageFinished]


class Session:
    """A run directory that is being written, and the trackers of the run.

    Args:
        directory: Directory of the run.
        learner: Learner whose environment steps are the time of events.
        place: Returns the index of the stage that events belong to, or -1.

    Attributes:
        finished: What each finished stage ended with, by name.
        pause: Why a tracker has asked for a pause in this session, or `None`.
    """

    def __init__(self, directory: RunDirectory, learner: Learner, place: Callable[[], int]) -> None:
        self.directory = directory
        self.finished: dict[str, StageFinished] = {}
        self.pause: str | None = None
        self._learner, self._place = learner, place
        self._notes: list[str] = []
        self._trackers: list[Follower] = []
        self._warned: set[str] = set()
        self._saves, self._saved_step = 1, 0

    def tell(self, sentences: Sequence[str]) -> None:
        """Emit sentences for the user as soon as trackers follow the run."""
        self._notes += sentences

    def flush(self) -> None:
        """Emit the sentences that wait for the user."""
        while self._notes:
            self.emit(Warned(self._notes.pop(0)))

    def emit(self, payload: Payload) -> None:
        """Write an event, and pass it to the trackers. Repeated warnings are emitted once per run."""
        if isinstance(payload, Warned) and FIRST in payload.message:
            kind = payload.message.partition(FIRST)[0]
            if kind in self._warned:
                return
            self._warned.add(kind)
        elif isinstance(payload, StageFinished):
            self.finished[self._name(self._place())] = payload
        index = -1 if isinstance(payload, (RunStarted, RunFinished)) else self._place()
        event = Event(payload, self._learner.global_step, index, self._name(index))
        self.directory.append(event)
        for tracker in self._trackers:
            answer = tracker(event)
            if isinstance(answer, Pause) and self.pause is None:
                self.pause = answer.reason

    def save(self, state: Mapping[str, Any], end: bool = False) -> None:
        """Write a checkpoint, which may be the end of a stage."""
        self._saves += 1
        self.directory.save(f"{self._saves:08d}", {**state, "notes": list(self._notes), "saves": self._saves}, end)
        self._saved_step = self._learner.global_step

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a checkpoint, and the history in the log up to it."""
        self._saves, self._saved_step = state["saves"], state["learner"]["global_step"]
        self._notes = [str(note) for note in state["notes"]]
        for event in read_events(self.directory.path):
            if isinstance(event.payload, StageFinished):
                self.finished[event.stage_name] = event.payload
            elif isinstance(event.payload, Warned):
                self._warned.add(event.payload.message.partition(FIRST)[0])

    @contextmanager
    def followed(
        self, track: Track, track_also: Sequence[Extra], console: bool, trackers: Sequence[Follower]
    ) -> Iterator[threading.Event]:
        """Tell trackers what happens, and let them go at the end; yield what is set when the run is interrupted.

        Raises:
            Fault: If the run cannot go on; the sentence says from which step it goes on when it is resumed.
            InputError: If the user can correct the cause, such as an expert that fails.
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
                yield interrupted
            except BaseException as error:
                fault = fault_of(error, self.directory.path)
                self._tell_failure(error if fault is None else fault)
                if fault is None:
                    raise
                add_place(fault, self._saved_step, self.directory.path, self._saves > 1)
                if fault is error:
                    raise
                raise fault from error

    def _name(self, index: int) -> str:
        return self.directory.record.curriculum.stages[index].name if index >= 0 else ""

    def _tell_failure(self, error: BaseException) -> None:
        """Emit the reason why the run stopped. Resuming cuts the log back to the last checkpoint."""
        reason = "Stopped at once." if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        with suppress(Exception):
            self.emit(RunFinished("failed", reason))

    def _let_go(self, tracker: Follower) -> None:
        """Close a tracker; what it warns of then is for those that still follow, as the log has ended."""
        self._trackers.remove(tracker)
        getattr(tracker, "close", lambda: None)()
        while self._notes:
            note = Event(Warned(self._notes.pop(0)), self._learner.global_step)
            for follower in self._trackers:
                follower(note)
