"""The one loop over stages, from an empty or interrupted run directory to the last policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlstages.curriculum import Curriculum, load_curriculum
from rlstages.environments.monitor import FIRST
from rlstages.environments.watchdog import watching
from rlstages.errors import Fault, InputError, require
from rlstages.events import Event, Payload, RunFinished, RunStarted, StageFinished, StageStarted, Tracker, Warned
from rlstages.learners.cloning import CloningRunner
from rlstages.learners.engines.choice import choose_engine
from rlstages.learners.fine_tuning import FineTuningRunner
from rlstages.learners.learner import Learner
from rlstages.learners.runner import Result, StageRunner
from rlstages.policies import final_weights, last_finished, learner_of
from rlstages.preflight import preflight
from rlstages.resumption import conditions, require_unchanged
from rlstages.spaces import space_to_data
from rlstages.stages import BehaviorCloning, FineTuning
from rlstages.stopping import add_place, fault_of, interrupts
from rlstages.storage.checkpoints import sha256
from rlstages.storage.record import new_record, read_record, versions
from rlstages.storage.rundir import RunDirectory, free_path, read_events, slug, update_curriculum
from rlstages.storage.trust import is_own, remember, trust_sources
from rlstages.threads import limited_threads, threads_of
from rlstages.tracking import Track, open_trackers

CHECKPOINT_SECONDS = 10.0
RUNS = Path("runs")
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


def train(
    curriculum: Curriculum | str | Path,
    *,
    seed: int = 0,
    out: Path | str | None = None,
    initial: Path | str | None = None,
    track: Track = "none",
    console: bool = False,
    trackers: Sequence[Tracker] = (),
    watch: Watch | None = None,
    trust_pickle: bool = False,
) -> RunResult:
    """Run a curriculum from its beginning.

    Args:
        curriculum: The curriculum, or the name or file of one.
        seed: Decides every random draw of the run.
        out: The run directory to make; default a free name under `runs/`.
        initial: A run whose final policy this one starts from (with the same network).
        track: Where Weights & Biases runs: `"auto"` is online where a key is configured and offline elsewhere.
        console: Whether to show the run on standard output.
        trackers: What else follows the run's events; each is closed at the end.
        watch: Looks at the learner before every step, and may pause the run; `resume` goes on from there.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.

    Raises:
        InputError: Before anything is written, if something in the curriculum cannot work.
    """
    if not isinstance(curriculum, Curriculum):
        curriculum = load_curriculum(str(curriculum))
    require(isinstance(seed, int) and seed >= 0, f"The seed is {seed!r}; give a whole number of at least 0.")
    checked = preflight(curriculum, trust_pickle=trust_pickle)
    spaces = {"observation": space_to_data(checked.observation), "action": space_to_data(checked.action)}
    came_from = None if initial is None else Path(initial).name
    record = new_record(curriculum, seed, spaces, conditions(curriculum.agent), came_from)
    path = Path(out) if out is not None else free_path(RUNS, curriculum, seed)
    with limited_threads(threads_of(curriculum.agent)):
        learner = learner_of(record)
        if initial is not None:
            take_over(learner, Path(initial))
        with RunDirectory.create(path, record, _state(learner)) as run:
            remember(path, run.record)
            live = _Run(run, learner, trust_pickle, watch, resumed=False)
            live.tell(checked.doubts)
            return live.train(track, console, trackers)


def resume(
    path: Path | str,
    *,
    max_steps: int | None = None,
    force: bool = False,
    track: Track = "none",
    console: bool = False,
    trackers: Sequence[Tracker] = (),
    watch: Watch | None = None,
    curriculum: Curriculum | str | Path | None = None,
    trust_pickle: bool = False,
    trust_imports: bool = False,
) -> RunResult:
    """Go on with a run that was interrupted, that crashed, or that missed a threshold.

    It ends as it would have without the interruption, to the last bit, if its environments can be brought back by
    their seeds and actions, and if the machine computes as it did (`conditions`). A run that has ended stays as it is.

    Args:
        path: Its run directory.
        max_steps: A larger step limit for the stage that it stopped in.
        force: Go on although the curriculum's files, or rlstages, have changed since it was started.
        track: Where Weights & Biases runs: `"auto"` is online where a key is configured and offline elsewhere.
        console: Whether to show the run on standard output.
        trackers: What else follows the run's events; each is closed at the end.
        watch: Looks at the learner before every step, and may pause the run; `resume` goes on from there.
        curriculum: The curriculum of a run that somebody else made, or its name or file: what it names is imported.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.
        trust_imports: Whether everything that a run which somebody else made names may be imported.

    Raises:
        InputError: If there is nothing to go on with, or the run names code that may not be imported.
    """
    with RunDirectory(Path(path)) as run:
        ended = None if max_steps is not None else how_it_ended(run.path)
        if ended is not None:
            return ended
        if curriculum is not None and not isinstance(curriculum, Curriculum):
            curriculum = load_curriculum(str(curriculum))
        told = require_unchanged(run.path, run.record, force)
        trust_sources(run.path, run.record, curriculum, trust_imports)
        name, state, damages = run.restore()
        if max_steps is not None:
            own = is_own(run.path, run.record)
            with _fitting(name):
                _raise_limit(run, state["stage"], max_steps)
            if own:
                remember(run.path, run.record)
        agent = run.record.curriculum.agent
        with limited_threads(threads_of(agent)):
            with _fitting(name):
                learner = learner_of(run.record, state["learner"]["policy"])
                live = _Run(run, learner, trust_pickle, watch, resumed=True)
                live.load(state)
            live.tell([*damages, *told])
            return live.train(track, console, trackers)


def how_it_ended(path: Path) -> RunResult | None:
    """Return how a run ended, or `None` if it can go on as it is."""
    events = list(read_events(path))
    last = events[-1].payload if events else None
    if not isinstance(last, RunFinished) or last.outcome in ("interrupted", "paused", "failed"):
        return None
    finished = {e.stage_name: e.payload for e in events if isinstance(e.payload, StageFinished)}
    return RunResult(path, last.outcome, last.reason, finished)


def take_over(learner: Learner, run: Path) -> None:
    """Start a learner from another run's final policy, which it trusts."""
    stages = dict(enumerate(read_record(run).curriculum.stages))
    learner.load_policy(final_weights(run))
    last = stages.get(last_finished(run)[0])
    learner.objective = "cloning" if isinstance(last, BehaviorCloning) else "reinforcement"
    learner.trust()


@contextmanager
def _fitting(checkpoint: str) -> Iterator[None]:
    """Refuse a checkpoint that is whole, but not one of this run's."""
    try:
        yield
    except (InputError, Fault):
        raise
    except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"Checkpoint {checkpoint} does not fit this run: {reason}.") from error


class _Run:
    """A run while it is trained: the learner, the stage under way, and who follows."""

    def __init__(
        self, directory: RunDirectory, learner: Learner, trust_pickle: bool, watch: Watch | None, resumed: bool
    ) -> None:
        self.directory, self.learner, self.resumed = directory, learner, resumed
        self.curriculum, self.seed = directory.record.curriculum, directory.record.seed
        self.trust_pickle, self.watch = trust_pickle, watch
        self._pause: str | None = None
        self.stage = 0
        self.runner: StageRunner | None = None
        self.seconds = 0.0
        self.finished: dict[str, StageFinished] = {}
        self._notes: list[str] = []
        self._trackers: list[Tracker] = []
        self._saves = 1
        self._saved_step = 0
        self._warned: set[str] = set()

    def tell(self, sentences: Sequence[str]) -> None:
        """Have a person told something as soon as someone follows the run."""
        self._notes += sentences

    def train(self, track: Track, console: bool, trackers: Sequence[Tracker]) -> RunResult:
        """Run stage after stage.

        Raises:
            Fault: If it cannot go on; the sentence says from which step it goes on when it is resumed.
            InputError: Likewise, for what a person can mend, such as an expert that fails.
        """
        with ExitStack() as stack:
            interrupted = stack.enter_context(interrupts())
            stack.enter_context(watching())
            followers = open_trackers(self.directory, track, console, self._notes.append)
            for tracker in [*followers, *trackers]:
                stack.callback(self._let_go, tracker)
                self._trackers.append(tracker)
            try:
                return self._train(interrupted)
            except BaseException as error:
                fault = fault_of(error, self.directory.path)
                self._tell_failure(error if fault is None else fault)
                if fault is None:
                    raise
                add_place(fault, self._saved_step, self.directory.path)
                if fault is error:
                    raise
                raise fault from error

    def _train(self, interrupted: threading.Event) -> RunResult:
        self._begin()
        outcome, reason = "reached", "The curriculum is done."
        while self.stage < len(self.curriculum.stages):
            result = self._run_stage(interrupted)
            if result is None and self._pause is not None:
                outcome, reason = "paused", self._pause
                break
            if result is None:
                outcome, reason = "interrupted", f"Interrupted in stage {self.spec.name!r}; resume goes on from here."
                break
            if result.outcome == "missed" and not self._goes_on_when_missed():
                outcome, reason = "missed", f"Stage {self.spec.name!r}: {result.reason}"
                break
            self._leave_stage()
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
    def spec(self) -> BehaviorCloning | FineTuning:
        """The stage under way."""
        return self.curriculum.stages[self.stage]

    def emit(self, payload: Payload) -> None:
        """Write an event down and tell everyone who follows; what is found again and again is told once in a run."""
        if isinstance(payload, Warned) and FIRST in payload.message:
            kind = payload.message.partition(FIRST)[0]
            if kind in self._warned:
                return
            self._warned.add(kind)
        inside = self.stage < len(self.curriculum.stages) and not isinstance(payload, (RunStarted, RunFinished))
        index, name = (self.stage, self.spec.name) if inside else (-1, "")
        event = Event(payload, self.learner.global_step, index, name)
        self.directory.append(event)
        for tracker in self._trackers:
            tracker(event)

    def save(self, end: bool = False) -> None:
        """Write a checkpoint, which may be the end of a stage."""
        self._saves += 1
        state = _state(self.learner, self.runner, self.stage, self.seconds, self._saves)
        self.directory.save(f"{self._saves:08d}", state, end)
        self._saved_step = self.learner.global_step

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.stage, self.seconds, self._saves = state["stage"], state["seconds"], state["saves"]
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
        self.emit(RunStarted(record.run_id, self.curriculum, self.seed, versions(), self.resumed, str(engine)))
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
        stage = self.spec
        self.runner = self._make_runner()
        self.seconds = 0.0
        limits: dict[str, Any] = {"max_steps": None, "max_epochs": None}
        if isinstance(stage, FineTuning):
            limits["max_steps"] = stage.max_steps
        else:
            limits["max_epochs"] = stage.max_epochs
        until = stage.until
        threshold = None if until is None else until.summary([])[1]
        asked = None if until is None else str(until)
        self.emit(StageStarted(type(stage).__name__, str(stage), criterion=asked, threshold=threshold, **limits))

    def _make_runner(self) -> StageRunner:
        stage = self.spec
        if isinstance(stage, FineTuning):
            return FineTuningRunner(stage, self.stage, self.learner, self.seed, self.emit)
        file = self.directory.path / "demonstrations" / f"{self._file_stem()}.safetensors"
        return CloningRunner(stage, self.stage, self.learner, self.seed, self.emit, file, self.trust_pickle)

    def _report(self, result: Result) -> None:
        """Keep the policy that leaves the stage and say how the stage ended."""
        assert self.runner is not None
        file = f"policies/{self._file_stem()}.safetensors"
        parent = result.parent or self._parent()
        digest = self.learner.save_policy(self.directory.path / file)
        event = StageFinished(
            outcome=result.outcome,
            reason=result.reason,
            stage_steps=self.runner.stage_steps,
            seconds=round(self.seconds, 3),
            before=result.before,
            after=result.after,
            verdict=result.verdict,
            policy=file,
            digest=digest,
            parent=parent,
        )
        self.finished[self.spec.name] = event
        self.emit(event)

    def _leave_stage(self) -> None:
        self.runner = None
        self.stage += 1
        self.save(end=True)

    def _goes_on_when_missed(self) -> bool:
        stage = self.spec
        return (stage.on_timeout if isinstance(stage, FineTuning) else stage.on_failure) == "advance"

    def _parent(self) -> str | None:
        """Return the digest of the policy that entered this stage."""
        if self.stage == 0:
            return None
        file = self.directory.path / "policies" / f"{self._file_stem(self.stage - 1)}.safetensors"
        return sha256(file.read_bytes())

    def _file_stem(self, stage: int | None = None) -> str:
        index = self.stage if stage is None else stage
        return f"{index:02d}-{slug(self.curriculum.stages[index].name)}"

    def _let_go(self, tracker: Tracker) -> None:
        """Close a tracker; what it warns of then is for those that still follow, as the log has ended."""
        self._trackers.remove(tracker)
        tracker.close()
        while self._notes:
            note = Event(Warned(self._notes.pop(0)), self.learner.global_step)
            for follower in self._trackers:
                follower(note)

    def _flush_notes(self) -> None:
        while self._notes:
            self.emit(Warned(self._notes.pop(0)))


def _state(
    learner: Learner, runner: StageRunner | None = None, stage: int = 0, seconds: float = 0.0, saves: int = 1
) -> dict[str, Any]:
    """Return all that a run goes on from."""
    return {
        "stage": stage,
        "seconds": seconds,
        "saves": saves,
        "learner": learner.state_dict(),
        "runner": None if runner is None else runner.state_dict(),
    }


def _raise_limit(run: RunDirectory, stage: int, max_steps: int) -> None:
    stages = list(run.record.curriculum.stages)
    under_way = stages[stage] if stage < len(stages) else None
    if not isinstance(under_way, FineTuning):
        raise InputError(f"{run.path} did not stop in a fine-tuning stage, so there is no step limit to raise.")
    require(
        max_steps > under_way.max_steps,
        f"--max-steps is {max_steps:,}, but stage {under_way.name!r} has {under_way.max_steps:,} already; give more.",
    )
    stages[stage] = replace(under_way, max_steps=max_steps)
    update_curriculum(run, replace(run.record.curriculum, stages=tuple(stages)))
