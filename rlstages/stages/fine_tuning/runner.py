"""Fine-tuning: PPO or A2C goes on with the learner's own policy until the gate opens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from rlstages.errors import Fault, require
from rlstages.events import Judged, Warned
from rlstages.learners.algorithms.on_policy.rollout import (
    estimate_advantages,
    steps_in,
)
from rlstages.play.examiner import Examiner
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import MAX_EPISODE_STEPS, Episode, Score, score
from rlstages.specs.serialization import from_data, to_data
from rlstages.specs.stages.fine_tuning import FineTuning
from rlstages.specs.stages.sequence import earlier_environments
from rlstages.stages.context import StageContext
from rlstages.stages.fine_tuning.copies import TrainingEnvs
from rlstages.stages.fine_tuning.critic_fit import AFTER_A_DROP_STEPS, CriticFit
from rlstages.stages.fine_tuning.exploration_guard import ExplorationGuard
from rlstages.stages.fine_tuning.gate import Answer, Gate
from rlstages.stages.fine_tuning.handover_guard import HandoverGuard
from rlstages.stages.fine_tuning.look_back import LookBack, stage_to_look_back_at
from rlstages.stages.fine_tuning.recent import Recent
from rlstages.stages.fine_tuning.updates import Updates
from rlstages.stages.runner import CheckResult, Result, Setting

SCREEN_EVERY = 10
LEVEL_SHARE = 0.25
_ENDLESS = (
    "The episode of copy {copy} did not end within {steps:,} steps, and the gate waits for it; give the environment a "
    "time limit."
)
_DEAR_LEVEL = (
    "To measure what the stage before had reached took {spent:,} of this stage's {most:,} steps; "
    "raise max_steps, or leave on_collapse out."
)


class FineTuningRunner:
    """Runs a `FineTuning` stage: score before, critic fit, rollouts and updates, look at the hand-over, confirmations.

    Where the policy samples its actions, rollouts are what confirmations judge (`Gate`). Where it acts
    deterministically, training episodes say nothing about it, and the frozen policy plays others in waves (`Examiner`).

    Args:
        context: What to do, with whose policy.
    """

    def __init__(self, context: StageContext) -> None:
        self.stage = stage = cast(FineTuning, context.spec)
        self.index, self.run_seed, self.emit = index, run_seed, emit = context.number, context.seed, context.emit
        self.learner = learner = context.learner
        self.stage_steps = 0
        self.result: Result | None = None
        self._examiner = Examiner(stage.environment, index, learner, run_seed, emit)
        self._gate = Gate(stage.until)
        self._guard = HandoverGuard(stage, learner, emit)
        self._explorer = ExplorationGuard(stage, learner, emit, run_seed + index)
        before = stage_to_look_back_at(context.stages, context.way)
        self._look_back = None if before is None else LookBack(before, index, learner, run_seed, emit)
        self._stays = stage.on_collapse == "return" and before is None
        earlier = earlier_environments(context.before, stage.environment)
        self._copies = TrainingEnvs(stage, earlier, learner, run_seed, index, emit)
        self._critic = CriticFit(learner, learner.agent.settings(stage))
        shown = context.demonstrated() if stage.demonstrations_needed else None
        self._updates = Updates(stage, learner, emit, self._guard, self._explorer, shown)
        self._recent = Recent(stage, emit)
        self._phase = "before"
        self._before: Score | None = None
        self._verdict: Verdict | None = None
        self._cloned = False

    @classmethod
    def check(cls, stage: FineTuning, setting: Setting) -> CheckResult:
        """Refuse an `exploration` that means nothing where actions are not continuous.

        Raises:
            InputError: See there.
        """
        asked = stage.exploration
        if asked is not None and not isinstance(setting.action_space, spaces.Box):
            require(
                0 <= asked <= 1,
                f"exploration is {asked:g}, but where actions are not continuous it is a share of random ones; give 0 "
                "to 1.",
            )
            require(
                setting.agent.action_mode != "deterministic",
                "exploration is of no use where the policy acts deterministically; leave it out, or leave action_mode "
                "out.",
            )
        return CheckResult()

    def step(self) -> None:
        """Score the policy, play one rollout and learn from it, or play one wave of a confirmation."""
        work: dict[str, Callable[[], None]] = {
            "before": self._start,
            "critic fit": self._fit_critic,
            "training": self._train,
            "hand-over": self._check_handover,
            "confirming": self._confirm if self._deterministic else self._train,
            "looking back": self._examine_decline,
        }
        work[self._phase]()

    def state_dict(self) -> dict[str, Any]:
        """Return the phase, the counters, the window, the confirmation and where the copies are."""
        return {
            "phase": self._phase,
            "before": to_data(self._before),
            "stage_steps": self.stage_steps,
            "verdict": to_data(self._verdict, nan_as_null=True),
            "cloned": self._cloned,
            **self._recent.state_dict(),
            **self._updates.state_dict(),
            **self._critic.state_dict(),
            "explorer": self._explorer.state_dict(),
            "examiner": self._examiner.state_dict(),
            "gate": self._gate.state_dict(),
            "guard": self._guard.state_dict(),
            "look_back": None if self._look_back is None else self._look_back.state_dict(),
            "copies": self._copies.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._phase, self.stage_steps, self._cloned = state["phase"], state["stage_steps"], state["cloned"]
        self._before = cast("Score | None", from_data(state["before"]))
        self._verdict = cast("Verdict | None", from_data(state["verdict"]))
        for part in (self._recent, self._updates, self._critic):
            part.load_state_dict(state)
        self._explorer.load_state_dict(state["explorer"])
        self._examiner.load_state_dict(state["examiner"])
        self._gate.load_state_dict(state["gate"])
        self._guard.load_state_dict(state["guard"])
        if state["look_back"] is None:
            self._stop_looking_back()
        elif self._look_back is not None:
            self._look_back.load_state_dict(state["look_back"])
        self._copies.load_state_dict(state["copies"])

    def close(self) -> None:
        """Close the environments."""
        self._examiner.close()
        if self._look_back is not None:
            self._look_back.close()
        self._copies.close()

    # --- the phases --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._stays:
            times = self.stage.max_returns
            self.emit(Warned(f"Stage {self.stage.name!r} has gone back {times} times; now it goes on."))
        played = self._examiner.play(self.stage.evaluation_episodes)
        self._before = self._examiner.score("before", played)
        # A network that nothing has trained yet is certain of nothing.
        self._explorer.begin(played if self.learner.objective is not None else [])
        if self._look_back is not None:
            spent = self._look_back.begin()
            self._count(spent)
            if spent > LEVEL_SHARE * self.stage.max_steps:
                self.emit(Warned(_DEAR_LEVEL.format(spent=spent, most=self.stage.max_steps)))
        policy = self.learner.policy
        if self.learner.objective == "cloning":
            self.learner.rebuild_optimizer()
            self._cloned = True
            self._critic.begin(self.stage.critic_fit_steps or 0)
            self._guard.begin(played, self._critic.until)
        if self.stage.exploration is not None and hasattr(policy, "log_std"):
            with torch.no_grad():
                policy.log_std.fill_(self.stage.exploration)
        if not self._deterministic:
            self._gate.begin(0)
        self.learner.objective = "reinforcement"
        self._phase = "critic fit" if self._critic.until else "training"

    def _fit_critic(self) -> None:
        """Let only the critic learn from a rollout, or all of the policy if the critic is fitted."""
        started = time.perf_counter()
        # Lambda 1: the returns themselves, for a critic whose own estimates are worth nothing yet.
        buffer = self._collect(trace_decay=1.0)
        answer = self._judge_rollout(started)
        if answer == "open" or self._explores_more(buffer, started):
            return
        if answer != "wait" and self._critic.is_done(buffer, self.stage_steps):
            self._guard.keep_critic(self.stage_steps - steps_in(buffer))
            self._phase = "training"
            # From here on the critic's own estimates count.
            estimate_advantages(buffer, self.learner.agent.gamma, self.learner.agent.trace_decay)
            self._train_on(buffer, started)
            return
        metrics = self._critic.learn(buffer)
        # Statistics are part of the policy, which stands still while the gate waits.
        if answer != "wait" and self._updates.absorb(buffer):
            self._gate.changed(self._copies.monitor.steps)
        self._report("critic fit", metrics, started)

    def _train(self) -> None:
        started = time.perf_counter()
        buffer = self._collect(trace_decay=self.learner.agent.trace_decay)
        answer = self._judge_rollout(started)
        if answer == "open":
            return
        if answer == "wait":
            # The policy stands still until it is known whether it leaves. Once the steps are spent it learns no more.
            self._phase = "confirming"
            if not self._is_spent:
                self._updates.hold(buffer)
            self._report("confirming", {}, started)
            return
        if self.stage_steps - steps_in(buffer) >= self.stage.max_steps:
            # These steps were played for the gate alone, which stays shut.
            self._report("confirming", {}, started)
            self._go_on()
            return
        if self._explores_more(buffer, started):
            return
        self._train_on(buffer, started)

    def _explores_more(self, buffer: RolloutBuffer, started: float) -> bool:
        """Have the policy explore more if it has to; whether it does, and the rollout is that of another policy."""
        if self._deterministic or not self._explorer.look(buffer, self._recent.episodes, self.stage_steps):
            return False
        # What it was is not what is held on to, or come back to.
        self._guard.stop(self.stage_steps)
        if self._explorer.raised:
            self._updates.anchor_here()
            self._stop_looking_back()
        self._recent.clear()
        self._updates.forget_held()
        self._gate.changed(self._copies.monitor.steps)
        self._report("exploring", {}, started)
        if self._phase != "critic fit":
            self._go_on()
        return True

    def _stop_looking_back(self) -> None:
        if self._look_back is not None:
            self._look_back.close()
            self._look_back = None

    def _train_on(self, buffer: RolloutBuffer, started: float) -> None:
        """Learn from a rollout, and see what comes next."""
        metrics = self._updates.learn(buffer, self.stage_steps)
        monitor = self._copies.monitor
        self._gate.changed(monitor.steps)
        if not self._deterministic and not self._is_spent:
            self._gate.propose(self._recent.episodes, monitor.begins, monitor.steps)
        self._report("training", metrics, started)
        if self._deterministic and self._updates.number % SCREEN_EVERY == 0:
            self._recent.episodes = self._examiner.screen(self._updates.number, self.stage.until.window)
            self._count(sum(episode.length for episode in self._recent.episodes))
        self._guard.look_for_recovery(self._recent.episodes, self.stage_steps)
        if self._guard.wants_a_look(self.stage_steps):
            self._phase = "hand-over"
        elif self._deterministic and self.stage.until.promising(self._recent.episodes):
            self._examiner.begin_attempt()
            self._phase = "confirming"
        elif self._look_back is not None and self._look_back.is_due(self.stage_steps):
            self._phase = "looking back"
        else:
            self._go_on()

    def _check_handover(self) -> None:
        played = self._examiner.play_again(self._guard.waves)
        self._count(sum(episode.length for episode in played))
        back = self._guard.judge(played, self.stage_steps)
        if back:
            # Those were episodes of a policy that is no more.
            self._recent.clear()
            self._gate.end()
            if self.stage.critic_fit_steps is None:
                self._critic.begin(self.stage_steps + AFTER_A_DROP_STEPS)
        if back is not None:
            self._go_on()
        if back and self._critic.until > self.stage_steps:
            self._phase = "critic fit"

    def _confirm(self) -> None:
        """Let the frozen policy, which acts deterministically, play one wave of a confirmation."""
        before = len(self._examiner.episodes)
        verdict = self._examiner.judge(self.stage.until)
        self._count(sum(episode.length for episode in self._examiner.episodes[before:]))
        self.emit(Judged(self._examiner.attempt, self.stage_steps, verdict))
        if verdict.met:
            self._pass(verdict, self._examiner.episodes)
        elif verdict.futile:
            self._verdict = verdict
            # The episodes that looked promising have been tested and are spent.
            self._recent.clear()
            self._go_on()

    def _pass(self, verdict: Verdict, played: Sequence[Episode]) -> None:
        """Leave the stage with the policy as it is, which has played these episodes."""
        if self._updates.number:
            self._guard.settle(played, self.stage_steps)
        elif self._cloned and not self._explorer.changed:
            # The clone leaves as it came, and the next stage is the first to train it.
            self.learner.objective = "cloning"
        self.learner.trust()
        self.result = Result("reached", f"{verdict.reason}.", self._before, score(played), verdict)

    def _examine_decline(self) -> None:
        assert self._look_back is not None
        self._count(self._look_back.play())
        decline, over = self._look_back.judge(self.stage_steps)
        if decline.lost:
            reason = f"What the stage before had reached is lost: {decline}."
            self.result = Result("collapsed", reason, self._before, None, None, decline=decline)
        elif over:
            self._go_on()

    def _go_on(self) -> None:
        self._phase = "training"
        if self._is_spent and not self._gate.under_way:
            self._give_up()

    def _give_up(self) -> None:
        after = self._examiner.score("after", self._examiner.play(self.stage.evaluation_episodes))
        spent, missing = f"{self.stage.max_steps:,} steps were spent", self._recent.shortfall()
        reason = f"{spent} and {self.stage.until} was not reached: {missing}."
        self.result = Result("missed", reason, self._before, after, self._verdict)

    # --- pieces ------------------------------------------------------------------------------------------------

    def _collect(self, trace_decay: float) -> RolloutBuffer:
        """Play one rollout with the policy as it is, and count its episodes."""
        buffer, played = self._copies.collect(trace_decay)
        self._count(steps_in(buffer))
        # Each copy's first episode is left out: of those, the short ones finish first.
        finished = [episode for episode in played if episode.number > 0]
        self._guard.note(finished)
        self._gate.note(played)
        self._recent.note(finished, counts=not self._deterministic)
        return buffer

    def _judge_rollout(self, started: float) -> Answer:
        """Let the episodes of a rollout, which nothing has been learned from yet, decide whether the stage is done."""
        monitor = self._copies.monitor
        begins = monitor.begins
        answers: set[Answer] = set()
        copy = int(begins.argmin())
        waits = self._gate.under_way and (self._phase == "confirming" or self._is_spent)
        if waits and monitor.steps - int(begins[copy]) > MAX_EPISODE_STEPS:
            raise Fault(_ENDLESS.format(copy=copy, steps=MAX_EPISODE_STEPS))
        found = self._gate.judge(begins, last=self._is_spent)
        if any(answer == "open" for *_, answer in found):
            self._report("confirming", {}, started)
        for attempt, verdict, answer in found:
            self.emit(Judged(attempt, self.stage_steps, verdict))
            if answer == "open":
                self._pass(verdict, self._gate.frozen(attempt, begins))
                return answer
            answers.add(answer)
            if verdict.futile:
                self._verdict = verdict
        if found and not self._gate.under_way:
            # The episodes that looked promising have been tested and are spent.
            self._recent.clear()
        return "wait" if "wait" in answers else "go on"

    def _report(self, phase: str, metrics: dict[str, float], started: float) -> None:
        speed, waiting_for = self.learner.agent.rollout_steps / (time.perf_counter() - started), ""
        if self._phase == "critic fit":
            left = max(0, self._critic.until - self.stage_steps)
            waiting_for = f"the critic is being fitted for {left:,} more steps"
        self._recent.report(phase, self.stage_steps, metrics, speed, waiting_for)

    def _count(self, steps: int) -> None:
        self.stage_steps += steps
        self.learner.global_step += steps

    @property
    def _is_spent(self) -> bool:
        return self.stage_steps >= self.stage.max_steps

    @property
    def _deterministic(self) -> bool:
        return self.learner.agent.action_mode == "deterministic"
