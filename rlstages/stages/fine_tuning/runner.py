"""Fine-tuning: PPO or A2C goes on with the learner's own policy until the gate opens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.joined import parts_of
from rlstages.environments.monitor import EpisodeMonitor, monitor_of
from rlstages.errors import Fault, require
from rlstages.events import Judged, RolloutFinished, Warned
from rlstages.learners.algorithms.on_policy.protocol import Anchor, Demonstrated, critic_parameters, explained
from rlstages.learners.algorithms.on_policy.rollout import (
    Rollout,
    collect,
    estimate_advantages,
    put_back,
    size_of,
    steps_in,
    taken,
)
from rlstages.learners.learner import load_optimizer_state, optimizer_state
from rlstages.learners.normalizer import normalizer_of
from rlstages.play.doubts import STRICT_LEVEL, doubts_about_reward
from rlstages.play.examiner import Examiner
from rlstages.specs.agent import SCHEDULED, value_at
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import MAX_EPISODE_STEPS, Episode, Score, episodes_of, rows_of, score, shown
from rlstages.specs.serialization import from_data, to_data
from rlstages.specs.stages.fine_tuning import FineTuning
from rlstages.specs.stages.sequence import earlier_environments
from rlstages.stages.context import StageContext
from rlstages.stages.fine_tuning.copies import copies_state, open_copies
from rlstages.stages.fine_tuning.exploration_guard import ExplorationGuard
from rlstages.stages.fine_tuning.gate import Answer, Gate
from rlstages.stages.fine_tuning.handover_guard import HandoverGuard
from rlstages.stages.fine_tuning.look_back import LookBack, stage_to_look_back_at
from rlstages.stages.runner import Found, Result, Setting

CRITIC_LEARNING_RATE = 1e-3
CRITIC_FIT_STEPS = 8_192
EXPLAINED, RISE = 0.2, 0.05
"""Of the returns' variance: the critic is fitted once it explains so much, or explains no more than it did."""
SCREEN_EVERY = 10
MOST_HELD = 2**26
"""Bytes of rollouts that wait to be learned from, and travel in each checkpoint; what is played beyond is lost."""
COMPARED_AFTER = (100, 200, 400)
"""Episodes of a stage after which the returns of solved and unsolved ones are compared."""
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
        self._earlier = earlier_environments(context.before, stage.environment)
        self._shown = context.demonstrated() if stage.demonstrations_needed else None
        self._settings = learner.agent.settings(stage)
        self._examiner = Examiner(stage.environment, index, learner, run_seed, emit)
        self._gate = Gate(stage.until)
        self._guard = HandoverGuard(stage, learner, emit)
        self._explorer = ExplorationGuard(stage, learner, emit, run_seed + index)
        before = stage_to_look_back_at(context.stages, context.way)
        self._look_back = None if before is None else LookBack(before, index, learner, run_seed, emit)
        self._stays = stage.on_collapse == "return" and before is None
        self._phase = "before"
        self._before: Score | None = None
        self._recent: list[Episode] = []
        self._first_episodes: list[Episode] = []
        self._verdict: Verdict | None = None
        self._held: list[Rollout] = []
        self._updates = 0
        self._cloned = False
        self._fit_until = 0
        self._fitted, self._explained = 0, -math.inf
        self._env: VecEnv | None = None
        self._left_off: Mapping[str, Any] | None = None
        self._critic_optimizer: torch.optim.Optimizer | None = None
        self._anchor = self.learner.anchor()

    @classmethod
    def check(cls, stage: FineTuning, setting: Setting) -> Found:
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
        return Found()

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
            "recent": rows_of(self._recent),
            "first_episodes": rows_of(self._first_episodes),
            "verdict": to_data(self._verdict, nan_as_null=True),
            "updates": self._updates,
            "cloned": self._cloned,
            "fit_until": self._fit_until,
            "fitted": [self._fitted, None if math.isinf(self._explained) else self._explained],
            "explorer": self._explorer.state_dict(),
            "examiner": self._examiner.state_dict(),
            "gate": self._gate.state_dict(),
            "held": [dict(rollout) for rollout in self._held],
            "guard": self._guard.state_dict(),
            "look_back": None if self._look_back is None else self._look_back.state_dict(),
            "critic_optimizer": None if self._critic_optimizer is None else optimizer_state(self._critic_optimizer),
            "copies": self._left_off if self._env is None else copies_state(self.learner.model, self._env),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; the copies are brought back when they are next needed."""
        self._phase = state["phase"]
        self._before = cast("Score | None", from_data(state["before"]))
        self.stage_steps, self._updates, self._fit_until = state["stage_steps"], state["updates"], state["fit_until"]
        self._recent = episodes_of(state["recent"])
        self._first_episodes = episodes_of(state.get("first_episodes", ()))
        self._left_off = state["copies"]
        self._verdict = cast("Verdict | None", from_data(state["verdict"]))
        self._cloned = state["cloned"]
        self._fitted, known = state["fitted"]
        self._explained = -math.inf if known is None else known
        self._explorer.load_state_dict(state["explorer"])
        self._examiner.load_state_dict(state["examiner"])
        self._gate.load_state_dict(state["gate"])
        self._held = list(state["held"])
        self._guard.load_state_dict(state["guard"])
        if state["look_back"] is None:
            self._stop_looking_back()
        elif self._look_back is not None:
            self._look_back.load_state_dict(state["look_back"])
        if state["critic_optimizer"] is not None:
            load_optimizer_state(self._make_critic_optimizer(), state["critic_optimizer"])

    def close(self) -> None:
        """Close the environments."""
        self._examiner.close()
        if self._look_back is not None:
            self._look_back.close()
        if self._env is not None:
            self._env.close()

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
            self._fit_until = self.stage.critic_fit_steps or 0
            self._guard.begin(played, self._fit_until)
        if self.stage.exploration is not None and hasattr(policy, "log_std"):
            with torch.no_grad():
                policy.log_std.fill_(self.stage.exploration)
        if not self._deterministic:
            self._gate.begin(0)
        self.learner.objective = "reinforcement"
        self._phase = "critic fit" if self._fit_until else "training"

    def _fit_critic(self) -> None:
        """Let only the critic learn, until it explains the returns of a rollout that it has not learned from."""
        if self._critic_optimizer is None:
            self._make_critic_optimizer()
        assert self._critic_optimizer is not None
        started = time.perf_counter()
        # Lambda 1: the returns themselves, for a critic whose own estimates are worth nothing yet.
        buffer = self._collect(trace_decay=1.0)
        answer = self._judge_rollout(started)
        if answer == "open" or self._explores_more(buffer, started):
            return
        known = explained(buffer)
        stalled = self._fitted >= 2 and not known > self._explained + RISE
        if answer != "wait" and (known >= EXPLAINED or stalled or self.stage_steps > self._fit_until):
            self._critic_optimizer = None
            self._guard.keep_critic(self.stage_steps - steps_in(buffer))
            self._phase = "training"
            # From here on the critic's own estimates count.
            estimate_advantages(buffer, self.learner.agent.gamma, self.learner.agent.trace_decay)
            self._train_on(buffer, started)
            return
        self._explained = max(self._explained, known)
        self._fitted += 1
        epochs, batch_size = self._settings.get("n_epochs", 10), self._settings.get("batch_size", 256)
        metrics = self.learner.engine.fit_critic(buffer, self._critic_optimizer, epochs, batch_size)
        # Statistics are part of the policy, which stands still while the gate waits.
        if answer != "wait" and normalizer_of(self.learner.policy) is not None:
            self._absorb(buffer)
            self._gate.changed(self._monitor.steps)
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
                self._hold(taken(buffer))
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
        if self._deterministic or not self._explorer.look(buffer, self._recent, self.stage_steps):
            return False
        # What it was is not what is held on to, or come back to.
        self._guard.stop(self.stage_steps)
        if self._explorer.raised:
            self.learner.trust()
            self._anchor = self.learner.anchor()
            self._stop_looking_back()
        self._recent, self._held = [], []
        self._gate.changed(self._monitor.steps)
        self._report("exploring", {}, started)
        if self._phase != "critic fit":
            self._go_on()
        return True

    def _stop_looking_back(self) -> None:
        if self._look_back is not None:
            self._look_back.close()
            self._look_back = None

    def _hold(self, rollout: Rollout) -> None:
        """Keep a rollout of the frozen policy to learn from, if there is room for it."""
        if sum(map(size_of, [*self._held, rollout])) <= MOST_HELD:
            self._held.append(rollout)

    def _train_on(self, buffer: RolloutBuffer, started: float) -> None:
        """Learn from a rollout, and see what comes next."""
        metrics = self._learn_from(buffer)
        self._report("training", metrics, started)
        if self._deterministic and self._updates % SCREEN_EVERY == 0:
            self._recent = self._examiner.screen(self._updates, self.stage.until.window)
            self._count(sum(episode.length for episode in self._recent))
        self._guard.look_for_recovery(self._recent, self.stage_steps)
        if self._guard.wants_a_look(self.stage_steps):
            self._phase = "hand-over"
        elif self._deterministic and self.stage.until.promising(self._recent):
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
            self._recent = []
            self._gate.end()
            if self.stage.critic_fit_steps is None:
                self._fit_until, self._fitted, self._explained = self.stage_steps + CRITIC_FIT_STEPS, 0, -math.inf
        if back is not None:
            self._go_on()
        if back and self._fit_until > self.stage_steps:
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
            self._recent = []
            self._go_on()

    def _pass(self, verdict: Verdict, played: Sequence[Episode]) -> None:
        """Leave the stage with the policy as it is, which has played these episodes."""
        if self._updates:
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
        reason = (
            f"{self.stage.max_steps:,} steps were spent and {self.stage.until} was not reached: {self._shortfall()}."
        )
        self.result = Result("missed", reason, self._before, after, self._verdict)

    # --- pieces ------------------------------------------------------------------------------------------------

    def _collect(self, trace_decay: float) -> RolloutBuffer:
        """Play one rollout with the policy as it is, and count its episodes."""
        env, model = self._copies(), self.learner.model
        buffer = collect(model, env, self.learner.engine, trace_decay)
        self._count(steps_in(buffer))
        played, *_ = [monitor_of(part).take() for part in parts_of(env)]
        # Each copy's first episode is left out: of those, the short ones finish first.
        finished = [episode for episode in played if episode.number > 0]
        self._guard.note(finished)
        self._gate.note(played)
        self._compare_returns(finished)
        if not self._deterministic:
            self._recent = (self._recent + finished)[-self._window :]
        return buffer

    def _judge_rollout(self, started: float) -> Answer:
        """Let the episodes of a rollout, which nothing has been learned from yet, decide whether the stage is done."""
        begins = self._monitor.begins
        answers: set[Answer] = set()
        copy = int(begins.argmin())
        waits = self._gate.under_way and (self._phase == "confirming" or self._is_spent)
        if waits and self._monitor.steps - int(begins[copy]) > MAX_EPISODE_STEPS:
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
            self._recent = []
        return "wait" if "wait" in answers else "go on"

    def _learn_from(self, buffer: RolloutBuffer) -> dict[str, float]:
        """Learn from a rollout, together with those that were held while the policy stood still."""
        # Schedules count from the beginning of the rollout.
        began = self.stage_steps - steps_in(buffer)
        if self._held:
            put_back(buffer, [*self._held, taken(buffer)])
            self._held = []
        progress = began / self.stage.max_steps
        settings = dict(self._settings)
        for name in settings.keys() & set(SCHEDULED):
            settings[name] = value_at(settings[name], progress) * self._guard.step_scale
        metrics = self.learner.engine.update(buffer, settings, *self._pull(began))
        self._absorb(buffer)
        self._updates += 1
        monitor = self._monitor
        self._gate.changed(monitor.steps)
        if not self._deterministic and not self._is_spent:
            self._gate.propose(self._recent, monitor.begins, monitor.steps)
        return metrics

    def _compare_returns(self, finished: Sequence[Episode]) -> None:
        """Say once that solved episodes bring less return than others, if the stage's first episodes show it."""
        before = len(self._first_episodes)
        self._first_episodes += finished[: COMPARED_AFTER[-1] - before]
        if any(before < number <= len(self._first_episodes) for number in COMPARED_AFTER):
            for sentence in doubts_about_reward(self.stage.environment, self._first_episodes, STRICT_LEVEL):
                self.emit(Warned(sentence))

    def _pull(self, began: int) -> tuple[Anchor | None, Demonstrated | None]:
        """Return what keeps an update near the anchor and the demonstrations, as far as that has not faded.

        Args:
            began: The stage's steps at which its rollout began.
        """
        steps = began - self._guard.began
        needed = self._explorer.anchors or self._guard.rollbacks > 0
        weight = self.stage.anchor_weight(self.learner.agent.algorithm, steps, needed) * self._guard.anchor_scale
        anchor = Anchor(self._anchor, weight) if self._anchor is not None and weight > 0 else None
        weight = self.stage.demonstration_weight(steps)
        return anchor, Demonstrated(*self._shown, weight) if self._shown is not None and weight > 0 else None

    def _absorb(self, buffer: RolloutBuffer) -> None:
        """Move the observation statistics: after an update and before the next rollout, never in between."""
        normalizer = normalizer_of(self.learner.policy)
        if normalizer is None:
            return
        first = normalizer.is_empty
        # The update's minibatches have joined the axes of steps and copies in place.
        normalizer.absorb(buffer.observations)
        constants = normalizer.constants() if first else None
        if constants is not None:
            self.emit(Warned(f"{self.stage.environment}: {constants}"))

    def _report(self, phase: str, metrics: dict[str, float], started: float) -> None:
        value, threshold = self.stage.until.summary(self._recent)
        window = score(self._recent) if self._recent else None
        length = None if window is None else window.steps / window.episodes
        self.emit(
            RolloutFinished(
                phase=phase,
                stage_steps=self.stage_steps,
                episodes=len(self._recent),
                mean_return=None if window is None else window.mean_return,
                success=None if window is None else window.success,
                mean_length=length,
                value=None if math.isnan(value) else value,
                threshold=threshold,
                train=metrics,
                steps_per_second=self.learner.agent.rollout_steps / (time.perf_counter() - started),
                waiting_for=self._waiting(),
            )
        )

    def _waiting(self) -> str:
        """Say why the gate has not opened."""
        if self._phase == "critic fit":
            return f"the critic is being fitted for {max(0, self._fit_until - self.stage_steps):,} more steps"
        recent = len(self._recent)
        if recent < self._window:
            return f"{recent} of {self._window} fresh episodes seen"
        value, threshold = self.stage.until.summary(self._recent)
        relation = "is below" if value < threshold else "has reached"
        last, wanted = (shown(self.stage.until.measure, number) for number in (value, threshold))
        return f"the last {recent} episodes' {last} {relation} {wanted}"

    def _shortfall(self) -> str:
        """Say what the steps were not enough for, beside the threshold."""
        recent = len(self._recent)
        if recent < self._window:
            return f"{recent} of {self._window} fresh episodes were seen"
        value, threshold = self.stage.until.summary(self._recent)
        unconfirmed = "" if value < threshold else ", and no confirmation bore that out"
        return f"the last {recent} episodes have {shown(self.stage.until.measure, value)}{unconfirmed}"

    def _count(self, steps: int) -> None:
        self.stage_steps += steps
        self.learner.global_step += steps

    def _copies(self) -> VecEnv:
        """Return the copies to train in: those of the rollout before, new ones, or those of an interrupted session."""
        if self._env is None:
            place = self.run_seed, self.index
            self._env = open_copies(self.stage, self._earlier, self.learner, *place, self.emit, self._left_off)
        return self._env

    def _make_critic_optimizer(self) -> torch.optim.Optimizer:
        parameters = critic_parameters(self.learner.policy)
        self._critic_optimizer = torch.optim.Adam(parameters, lr=CRITIC_LEARNING_RATE, eps=1e-5)
        return self._critic_optimizer

    @property
    def _window(self) -> int:
        return self.stage.until.window

    @property
    def _monitor(self) -> EpisodeMonitor:
        """What counts the episodes of the stage's own environment."""
        return monitor_of(parts_of(self._copies())[0])

    @property
    def _is_spent(self) -> bool:
        return self.stage_steps >= self.stage.max_steps

    @property
    def _deterministic(self) -> bool:
        return self.learner.agent.action_mode == "deterministic"
