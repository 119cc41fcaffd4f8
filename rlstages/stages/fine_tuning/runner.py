"""The runner of fine-tuning, which trains the learner's policy with PPO or A2C until the gate opens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from gymnasium import spaces

from rlstages.errors import require
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import Episode, Score, score
from rlstages.specs.serialization import from_data, to_data
from rlstages.specs.stages.fine_tuning import FineTuning
from rlstages.stages.context import StageContext
from rlstages.stages.fine_tuning import judging, phases
from rlstages.stages.fine_tuning.parts import make_parts
from rlstages.stages.runner import CheckResult, Result, Setting


class FineTuningRunner:
    """Runs a `FineTuning` stage: score before, critic fit, rollouts and updates, hand-over guard, confirmations.

    If the policy is judged by sampled actions, confirmations judge the rollouts (`Gate`). If it is judged by
    deterministic
    actions, training episodes say nothing about it, and the frozen policy plays other episodes in waves (`Examiner`).

    Args:
        context: Context of the stage.

    Attributes:
        parts: Parts of the stage.
        phase: Phase of the next step.
        before: Score of the policy before the stage.
        verdict: Verdict of the last confirmation that could no longer be met.
        cloned: Whether the stage began with a hand-over.
    """

    def __init__(self, context: StageContext) -> None:
        self.stage = cast(FineTuning, context.spec)
        self.learner, self.emit = context.learner, context.emit
        self.parts = make_parts(context)
        self.stage_steps = 0
        self.result: Result | None = None
        self.phase = "before"
        self.before: Score | None = None
        self.verdict: Verdict | None = None
        self.cloned = False

    @classmethod
    def check(cls, stage: FineTuning, setting: Setting) -> CheckResult:
        """Refuse a value of `exploration` that does not fit the action space.

        Raises:
            InputError: If the value is out of range, or has no effect.
        """
        asked = stage.exploration
        if asked is not None and not isinstance(setting.action_space, spaces.Box):
            sentence = (
                f"exploration is {asked:g}, but where actions are not continuous it is a share of random ones; give 0 "
                "to 1."
            )
            require(0 <= asked <= 1, sentence, "setting-range", name="exploration", value=asked)
            sentence = (
                "exploration is of no use where the policy acts deterministically; leave it out, or leave action_mode "
                "out."
            )
            require(setting.agent.action_mode != "deterministic", sentence, "setting-conflict", name="exploration")
        return CheckResult()

    def step(self) -> None:
        """Make one step of the current phase, such as a rollout and its update, or one wave of a confirmation."""
        work: dict[str, Callable[[FineTuningRunner], None]] = {
            "before": judging.start,
            "critic fit": phases.fit_critic,
            "training": phases.train,
            "hand-over": judging.check_handover,
            "confirming": judging.confirm if self.deterministic else phases.train,
            "looking back": judging.look_back,
        }
        work[self.phase](self)

    def state_dict(self) -> dict[str, Any]:
        """Return the phase, the counters, and the states of all parts."""
        return {
            "phase": self.phase,
            "before": to_data(self.before),
            "stage_steps": self.stage_steps,
            "verdict": to_data(self.verdict, nan_as_null=True),
            "cloned": self.cloned,
            **self.parts.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.phase, self.stage_steps, self.cloned = state["phase"], state["stage_steps"], state["cloned"]
        self.before = cast("Score | None", from_data(state["before"]))
        self.verdict = cast("Verdict | None", from_data(state["verdict"]))
        self.parts.load_state_dict(state)

    def close(self) -> None:
        """Close the environments."""
        self.parts.close()

    # --- for the phases --------------------------------------------------------------------------------------------

    @property
    def is_spent(self) -> bool:
        """Whether the steps of the stage are spent."""
        return self.stage_steps >= self.stage.max_steps

    @property
    def deterministic(self) -> bool:
        """Whether the policy is judged by deterministic actions."""
        return self.learner.agent.action_mode == "deterministic"

    def count(self, steps: int) -> None:
        """Count environment steps."""
        self.stage_steps += steps
        self.learner.global_step += steps

    def report(self, phase: str, metrics: dict[str, float], started: float) -> None:
        """Emit the event for a rollout.

        Args:
            phase: Phase in which it was played.
            metrics: Metrics of the update.
            started: Value of `time.perf_counter` at its beginning.
        """
        speed, waiting_for = self.learner.agent.rollout_steps / (time.perf_counter() - started), ""
        if self.phase == "critic fit":
            left = max(0, self.parts.critic.until - self.stage_steps)
            waiting_for = f"the critic is being fitted for {left:,} more steps"
        self.parts.recent.report(phase, self.stage_steps, metrics, speed, waiting_for)

    def go_on(self) -> None:
        """Continue training, or end the stage if its steps are spent and no confirmation is in progress."""
        self.phase = "training"
        if self.is_spent and not self.parts.gate.under_way:
            after = self.parts.examiner.score("after", self.parts.examiner.play(self.stage.evaluation_episodes))
            spent, over = f"{self.stage.max_steps:,} steps were spent", self.stage_steps - self.stage.max_steps
            if over >= self.learner.agent.rollout_steps:
                spent += f" (and {over:,} more to the end of a confirmation)"
            missing = self.parts.recent.shortfall(self.verdict)
            reason = f"{spent} and {self.stage.until} was not reached: {missing}."
            self.result = Result("missed", reason, self.before, after, self.verdict)

    def pass_gate(self, verdict: Verdict, played: Sequence[Episode]) -> None:
        """End the stage with the current policy.

        Args:
            verdict: Verdict that opened the gate.
            played: Episodes of the current policy.
        """
        if self.parts.updates.number:
            self.parts.guard.settle(played, self.stage_steps)
        elif self.cloned and not self.parts.explorer.changed:
            # The clone is unchanged, so the hand-over will take place in the next stage.
            self.learner.objective = "cloning"
        self.learner.trust()
        self.result = Result("reached", f"{verdict.reason}.", self.before, score(played), verdict)
