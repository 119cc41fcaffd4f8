"""The one loop over stages, from an empty or interrupted run directory to the last policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rlstages.events import Follower, RunFinished, RunStarted
from rlstages.learners.algorithms.base import implementation_of
from rlstages.learners.learner import Learner
from rlstages.play.retention import Retention
from rlstages.specs.stages.base import StageSpec
from rlstages.stages.context import StageContext
from rlstages.stages.path import Way, end_of, parent_of, policy_file, start_of, visit_of
from rlstages.stages.runner import (
    Result,
    StageRunner,
    require_counters,
    require_result,
    runner_of,
)
from rlstages.storage.record import versions
from rlstages.storage.run_directory import RunDirectory
from rlstages.tracking import Extra, Track
from rlstages.training.session import RunResult, Session
from rlstages.training.state import state_of_run, unsavable_named

CHECKPOINT_SECONDS = 10.0
Watch = Callable[[Learner], str | None]
"""A function of the learner, called before every step. If it returns a sentence, the run pauses."""


class Trainer:
    """A run while it trains: the learner and the current stage."""

    def __init__(
        self, directory: RunDirectory, learner: Learner, trust_pickle: bool, watch: Watch | None, resumed: bool
    ) -> None:
        self.learner, self.resumed = learner, resumed
        self.curriculum, self.seed = directory.record.curriculum, directory.record.seed
        self.trust_pickle, self.watch = trust_pickle, watch
        self.session = Session(directory, learner, self._place)
        self.stage, self.seconds = 0, 0.0
        self.way: Way = ()
        self.runner: StageRunner | None = None
        self.retention = Retention(self.curriculum, learner, self.seed, self.session.emit, trust_pickle)

    def train(
        self, track: Track, track_also: Sequence[Extra], console: bool, trackers: Sequence[Follower]
    ) -> RunResult:
        """Run stage after stage; see `Session.followed` for what it raises."""
        session = self.session
        with session.followed(track, track_also, console, trackers) as interrupted:
            self._begin()
            outcome, reason = self._run(interrupted)
            session.emit(RunFinished(outcome, reason))
            self.save()
            return RunResult(session.directory.path, outcome, reason, dict(session.finished))

    def _run(self, interrupted: threading.Event) -> tuple[str, str]:
        """Run the remaining stages; return the outcome and the reason."""
        session = self.session
        while self.stage < len(self.curriculum.stages) or self.retention.is_due:
            # Retention: score the policy in all environments
            if self.retention.is_due:
                pause = self._step(
                    self.retention, lambda: not self.retention.is_due, interrupted, lambda: session.pause
                )
                if self.retention.is_due and pause is not None:
                    return "paused", pause
                if self.retention.is_due:
                    return "interrupted", "Interrupted between two stages; resume goes on from here."
                continue
            # Stage
            spec = self.spec
            result, pause = self._run_stage(interrupted)
            if result is None:
                interruption = f"Interrupted in stage {spec.name!r}; resume goes on from here."
                return ("interrupted", interruption) if pause is None else ("paused", pause)
            # Next stage
            if result.outcome == "collapsed":
                self._leave_stage(self.stage - 1)
            elif result.outcome == "missed" and not spec.goes_on_when_missed:
                return "missed", f"Stage {spec.name!r}: {result.reason}"
            else:
                self.retention.begin(self.stage, result.after)
                self._leave_stage(self.stage + 1)
        self._asked_to_pause()
        return "reached", "The curriculum is done."

    @property
    def spec(self) -> StageSpec:
        """The current stage."""
        return self.curriculum.stages[self.stage]

    def save(self, end: bool = False) -> None:
        """Write a checkpoint, which may be the end of a stage."""
        state = state_of_run(self)
        with unsavable_named(self):
            self.session.save(state, end)

    # --- pieces ------------------------------------------------------------------------------------------------

    def _place(self) -> int:
        """Return the index of the stage to which events belong now."""
        index = self.stage - 1 if self.retention.is_due else self.stage
        return index if index < len(self.curriculum.stages) else -1

    def _begin(self) -> None:
        """Emit the start of the run."""
        record, policy = self.session.directory.record, self.learner.policy
        agent = self.curriculum.agent
        engine = implementation_of(agent.algorithm).check(agent, policy.observation_space, policy.action_space)
        found = versions(record.versions)
        self.session.emit(RunStarted(record.run_id, self.curriculum, self.seed, found, self.resumed, engine))
        self.session.flush()

    def _run_stage(self, interrupted: threading.Event) -> tuple[Result | None, str | None]:
        """Step the stage until it ends or the run stops; return its result, and the reason of a pause."""
        if self.runner is None:
            self._enter_stage()
        runner = self.runner
        assert runner is not None
        pause = self._step(runner, lambda: runner.result is not None, interrupted, self._asked_to_pause)
        if runner.result is not None:
            self._report(runner.result)
        return runner.result, pause

    def _step(
        self,
        task: StageRunner | Retention,
        is_done: Callable[[], bool],
        interrupted: threading.Event,
        asked: Callable[[], str | None] = lambda: None,
    ) -> str | None:
        """Step a task until it is done, interrupted, or `asked` returns the reason for a pause; return that reason."""
        saved = started = time.monotonic()
        pause = None
        try:
            while not is_done() and not interrupted.is_set() and (pause := asked()) is None:
                task.step()
                self.session.flush()
                now = time.monotonic()
                self.seconds, started = self.seconds + now - started, now
                if now - saved >= CHECKPOINT_SECONDS and not is_done():
                    self.save()
                    saved = time.monotonic()
            return pause
        finally:
            task.close()

    def _asked_to_pause(self) -> str | None:
        """Call the watch; return the reason if it or a tracker asks for a pause."""
        asked = None if self.watch is None else self.watch(self.learner)
        return self.session.pause if asked is None else asked

    def _enter_stage(self) -> None:
        self.way += (self.stage,)
        self.runner = self.make_runner()
        self.seconds = 0.0
        self.session.emit(start_of(self.spec, visit_of(self.way)))

    def make_runner(self) -> StageRunner:
        """Make the runner of the current stage."""
        run, stages = self.session.directory.path, self.curriculum.stages
        context = StageContext(self.learner, self.seed, self.session.emit, run, stages, self.way, self.trust_pickle)
        runner: StageRunner = runner_of(self.spec)(context)
        require_counters(self.spec, runner)
        return runner

    def _report(self, result: Result) -> None:
        """Save the policy, and emit the end of the stage."""
        assert self.runner is not None
        require_result(self.spec, result, follows=self.stage > 0)
        run, stages = self.session.directory.path, self.curriculum.stages
        digest = self.learner.save_policy(run / policy_file(stages, self.way))
        parent = result.parent or parent_of(run, stages, self.way)
        self.session.emit(end_of(result, stages, self.way, self.runner.stage_steps, self.seconds, digest, parent))

    def _leave_stage(self, to: int) -> None:
        self.runner = None
        self.stage = to
        self.save(end=True)
