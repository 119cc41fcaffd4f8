"""The phases of fine-tuning in which something is learned, one step of each: functions of the stage under way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rlstages.errors import Fault
from rlstages.events import Judged
from rlstages.learners.algorithms.base import Experience
from rlstages.specs.criteria.episodes import MAX_EPISODE_STEPS
from rlstages.stages.fine_tuning.gate import Answer

if TYPE_CHECKING:
    from rlstages.stages.fine_tuning.runner import FineTuningRunner

SCREEN_EVERY = 10
_ENDLESS = (
    "The episode of copy {copy} did not end within {steps:,} steps, and the gate waits for it; give the environment a "
    "time limit."
)


def fit_critic(runner: FineTuningRunner) -> None:
    """Let only the critic learn from a rollout, or all of the policy if the critic is fitted."""
    started = time.perf_counter()
    experience = _collect(runner, for_critic=True)
    answer = _judge_rollout(runner, started)
    if answer == "open" or _explores_more(runner, experience, started):
        return
    known = runner.parts.critic.explained(experience)
    if answer != "wait" and runner.parts.critic.is_done(known, runner.stage_steps):
        runner.parts.guard.keep_critic(runner.stage_steps - experience.steps)
        runner.phase = "training"
        # From here on the critic's own estimates count.
        runner.parts.critic.trust(experience)
        _train_on(runner, experience, started)
        return
    metrics = runner.parts.critic.learn(experience, known)
    # Statistics are part of the policy, which stands still while the gate waits.
    if answer != "wait" and runner.parts.updates.absorb(experience):
        runner.parts.gate.changed(runner.parts.envs.monitor.steps)
    runner.report("critic fit", metrics, started)


def train(runner: FineTuningRunner) -> None:
    """Play a rollout, let the gate judge it, and learn from it unless the gate waits."""
    started = time.perf_counter()
    experience = _collect(runner)
    answer = _judge_rollout(runner, started)
    if answer == "open":
        return
    if answer == "wait":
        # The policy stands still until it is known whether it leaves. Once the steps are spent it learns no more.
        runner.phase = "confirming"
        if not runner.is_spent:
            runner.parts.updates.hold(experience)
        runner.report("confirming", {}, started)
        return
    if runner.stage_steps - experience.steps >= runner.stage.max_steps:
        # These steps were played for the gate alone, which stays shut.
        runner.report("confirming", {}, started)
        runner.go_on()
        return
    if _explores_more(runner, experience, started):
        return
    _train_on(runner, experience, started)


def _explores_more(runner: FineTuningRunner, experience: Experience, started: float) -> bool:
    """Have the policy explore more if it has to; whether it does, and the rollout is that of another policy."""
    if runner.deterministic or not runner.parts.explorer.look(
        experience, runner.parts.recent.episodes, runner.stage_steps
    ):
        return False
    # What it was is not what is held on to, or come back to.
    runner.parts.guard.stop(runner.stage_steps)
    if runner.parts.explorer.raised:
        runner.parts.updates.anchor_here()
        runner.parts.stop_looking_back()
    runner.parts.recent.clear()
    runner.parts.updates.forget_held()
    runner.parts.gate.changed(runner.parts.envs.monitor.steps)
    runner.report("exploring", {}, started)
    if runner.phase != "critic fit":
        runner.go_on()
    return True


def _train_on(runner: FineTuningRunner, experience: Experience, started: float) -> None:
    """Learn from a rollout, and see what comes next."""
    parts, until = runner.parts, runner.stage.until
    metrics = parts.updates.learn(experience, runner.stage_steps)
    monitor = parts.envs.monitor
    parts.gate.changed(monitor.steps)
    if not runner.deterministic and not runner.is_spent:
        parts.gate.propose(parts.recent.episodes, monitor.begins, monitor.steps)
    runner.report("training", metrics, started)
    if runner.deterministic and parts.updates.number % SCREEN_EVERY == 0:
        parts.recent.episodes = parts.examiner.screen(parts.updates.number, until.window)
        runner.count(sum(episode.length for episode in parts.recent.episodes))
    parts.guard.look_for_recovery(parts.recent.episodes, runner.stage_steps)
    if parts.guard.wants_a_look(runner.stage_steps):
        runner.phase = "hand-over"
    elif runner.deterministic and until.promising(parts.recent.episodes):
        parts.examiner.begin_attempt()
        runner.phase = "confirming"
    elif parts.look_back is not None and parts.look_back.is_due(runner.stage_steps):
        runner.phase = "looking back"
    else:
        runner.go_on()


def _collect(runner: FineTuningRunner, *, for_critic: bool = False) -> Experience:
    """Play one rollout with the policy as it is, and count its episodes."""
    experience, played = runner.parts.envs.collect(for_critic=for_critic)
    runner.count(experience.steps)
    # Each copy's first episode is left out: of those, the short ones finish first.
    finished = [episode for episode in played if episode.number > 0]
    runner.parts.guard.note(finished)
    runner.parts.gate.note(played)
    runner.parts.recent.note(finished, counts=not runner.deterministic)
    return experience


def _judge_rollout(runner: FineTuningRunner, started: float) -> Answer:
    """Let the episodes of a rollout, which nothing has been learned from yet, decide whether the stage is done."""
    monitor = runner.parts.envs.monitor
    begins = monitor.begins
    answers: set[Answer] = set()
    copy = int(begins.argmin())
    waits = runner.parts.gate.under_way and (runner.phase == "confirming" or runner.is_spent)
    if waits and monitor.steps - int(begins[copy]) > MAX_EPISODE_STEPS:
        raise Fault(_ENDLESS.format(copy=copy, steps=MAX_EPISODE_STEPS), "episode-endless")
    found = runner.parts.gate.judge(begins, last=runner.is_spent)
    if any(answer == "open" for *_, answer in found):
        runner.report("confirming", {}, started)
    for attempt, verdict, answer in found:
        runner.emit(Judged(attempt, runner.stage_steps, verdict))
        if answer == "open":
            runner.pass_gate(verdict, runner.parts.gate.frozen(attempt, begins))
            return answer
        answers.add(answer)
        if verdict.futile:
            runner.verdict = verdict
    if found and not runner.parts.gate.under_way:
        # The episodes that looked promising have been tested and are spent.
        runner.parts.recent.clear()
    return "wait" if "wait" in answers else "go on"
