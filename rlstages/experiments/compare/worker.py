"""The process of one run of a comparison, which trains and scores at intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.make import make_vec_env
from rlstages.environments.seeding import Purpose
from rlstages.events import (
    DemonstrationsReady,
    Event,
    ExplorationMeasured,
    Judged,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Warned,
)
from rlstages.experiments.compare.budget import settle_steps
from rlstages.experiments.compare.curve import Curve, Mark, Reason, Row, grid_interval, read_curve, write_curve
from rlstages.experiments.compare.directory import claim_comparison, run_path
from rlstages.experiments.compare.plan import Plan
from rlstages.learners.learner import Learner
from rlstages.play.play import play_episodes
from rlstages.reproducibility import random_state_kept
from rlstages.specs.criteria.episodes import Score, score
from rlstages.storage.lock import patiently
from rlstages.storage.run_directory import clear_unborn, read_events
from rlstages.training.resuming import resume
from rlstages.training.session import RunResult
from rlstages.training.start import train

EVALUATION_SEED = 2_000_000
SCORING_SHARE = 8
"""A point of a curve is measured on this part of the episodes of a final score."""
_NO_CHANGE = (ExplorationMeasured, Judged, RunStarted, RunFinished, Warned)
"""Between these the policy certainly stands still: a confirmation is of a frozen policy, however long it takes."""


def run_arm(directory: Path, plan: Plan, arm: str, seed: int, steps: int | None) -> RunResult:
    """Make or continue one run of a comparison.

    Args:
        directory: Directory of the comparison.
        plan: Plan of the comparison, with this arm and the number of episodes.
        arm: Its name.
        seed: Seed of the run.
        steps: Environment steps that it may spend; `None` pauses it when its own stages are done, or one is missed at
            which the curriculum stops.

    Raises:
        InputError: If the directory holds another comparison or one of more steps, or the run is one of something else.
    """
    claim_comparison(directory, plan)
    if steps is not None:
        settle_steps(directory, steps)
    path = run_path(directory, arm, seed)
    watch = CurveWatch(path, plan, arm, seed, steps)
    more: dict[str, Any] = {
        "track": plan.track,
        "track_also": plan.track_also,
        "trackers": [watch.take],
        "watch": watch,
        "trust_pickle": plan.trust_pickle,
    }
    try:
        if (path / "run.json").is_file():
            return patiently(lambda: resume(path, curriculum=plan.arms[arm], **more))
        clear_unborn(path)
        return train(plan.arms[arm], seed=seed, out=path, parameters=plan.parameters.get(arm), **more)
    finally:
        watch.close()


class CurveWatch:
    """Scores a run at intervals, and pauses it when its steps are spent.

    Policies are scored at the first moment between two steps at which a multiple of the grid's interval is spent, on
    the same episodes' seeds in all arms; global random generators are put back afterwards, and the environments are of
    its own, so the run's result does not depend on it.

    Args:
        run: Run directory.
        plan: Plan of the comparison.
        arm: Its name.
        seed: Seed of the run.
        steps: Environment steps to spend, or `None`.
    """

    def __init__(self, run: Path, plan: Plan, arm: str, seed: int, steps: int | None) -> None:
        self._run, self._plan, self._seed, self._steps = run, plan, seed, steps
        self._stages = plan.arms[arm].stages
        # In an arm every stage is followed by the next; where its own curriculum stops, what it needs for that ends.
        self._patient = {stage.name for stage in plan.curriculum.stages if stage.goes_on_when_missed}
        self._copies: list[VecEnv] = []
        self._curve: Curve | None = None
        self._shown = 0
        self._marks: list[Mark] = []
        self._own_cost: int | None = None
        self._changes = 0
        self._cloning, self._done = False, False

    def take(self, event: Event) -> None:
        """Take an event of the run. Those before the first call with the learner are read from the log."""
        if self._curve is not None:
            self._take(event)

    def _take(self, event: Event) -> None:
        payload = event.payload
        still = isinstance(payload, RolloutFinished) and payload.phase == "confirming"
        self._changes += not (still or isinstance(payload, _NO_CHANGE))
        if isinstance(payload, DemonstrationsReady):
            self._shown += payload.cost
        elif isinstance(payload, StageStarted):
            self._cloning = not self._stages[event.stage_index].reinforces
            if event.stage_index == len(self._stages) - 1 and self._stages[-1].reinforces:
                self._end_own(event)
        elif isinstance(payload, StageFinished):
            if self._cloning and payload.verdict is not None and payload.after is not None:
                # The confirmation, which a cloning stage leaves out of the run's steps.
                self._shown += payload.after.steps
            self._done = event.stage_index == len(self._stages) - 1
            if self._done or (payload.outcome == "missed" and event.stage_name not in self._patient):
                self._end_own(event)
            self._marks.append(Mark(event.global_step + self._shown, event.stage_name, payload.outcome))

    def _end_own(self, event: Event) -> None:
        if self._own_cost is None:
            self._own_cost = event.global_step + self._shown

    def __call__(self, learner: Learner) -> str | None:
        """Score the policy if it is due; return a sentence when the run's steps are spent."""
        curve = self._curve if self._curve is not None else self._begin(learner)
        cost = learner.global_step + self._shown
        now = replace(curve, marks=tuple(self._marks), own_cost=self._own_cost)
        # A mark is kept together with its score: a kill in between would leave it without one for good.
        if len(now.marks) > len(curve.marks):
            self._score(now, learner, cost, "stage")
        elif self._is_due(now, cost):
            self._score(now, learner, cost, "grid")
        elif now.own_cost != curve.own_cost:
            self._keep(now)
        if self._done:
            self._finish(learner, cost, None)
            return None
        if self._steps is None:
            return "Its own stages are done." if self._own_cost is not None else None
        # Cloning is never cut short: without its end, its demonstrations would be paid for in vain.
        if cost < self._steps or self._cloning:
            return None
        self._finish(learner, cost, self._steps)
        return f"{self._steps:,} steps are spent."

    def close(self) -> None:
        """Close the environments."""
        for env in self._copies:
            env.close()

    def _begin(self, learner: Learner) -> Curve:
        """Read the log, which has been cut back to the checkpoint, and drop scores of what came after that."""
        for event in read_events(self._run):
            self._take(event)
        curve, cost = read_curve(self._run), learner.global_step + self._shown
        rows = tuple(row for row in curve.rows if row.cost <= cost)
        self._curve = Curve(rows, curve.marks[: len(self._marks)], curve.own_cost)
        return self._curve

    def _is_due(self, curve: Curve, cost: int) -> bool:
        interval = grid_interval(self._steps if self._steps is not None else cost, self._plan.rollout_steps)
        return cost // interval > max((row.cost // interval for row in curve.rows), default=-1)

    def _finish(self, learner: Learner, cost: int, steps: int | None) -> None:
        assert self._curve is not None
        if self._curve.final(steps) is None:
            self._score(self._curve, learner, cost, "final", steps)

    def _score(self, curve: Curve, learner: Learner, cost: int, why: Reason, steps: int | None = None) -> None:
        before = curve.rows[-1] if curve.rows else None
        if before is not None and before.changes == self._changes and why != "final":
            scores = before.scores
        else:
            scores = self._played(learner, self._plan.episodes // (1 if why == "final" else SCORING_SHARE))
        self._keep(replace(curve, rows=(*curve.rows, Row(cost, why, scores, steps, self._changes))))

    def _played(self, learner: Learner, episodes: int) -> tuple[Score, ...]:
        deterministic = learner.agent.action_mode == "deterministic"
        scores: list[Score] = []
        with random_state_kept():
            for index, env in enumerate(self._open_copies()):
                seed = EVALUATION_SEED + self._seed
                scores.append(
                    score(play_episodes(learner.algorithm, env, max(1, episodes), seed, index, deterministic))
                )
        return tuple(scores)

    def _open_copies(self) -> list[VecEnv]:
        if not self._copies:
            n_envs = self._plan.curriculum.agent.n_envs
            for index, environment in enumerate(self._plan.environments):
                self._copies.append(make_vec_env(environment, n_envs, EVALUATION_SEED, index, Purpose.EVALUATION))
        return self._copies

    def _keep(self, curve: Curve) -> Curve:
        self._curve = curve
        write_curve(self._run, curve)
        return curve
