"""The phases of fine-tuning in which the policy or the critic is trained. Each function makes one step."""

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
    """Play a rollout and train only the critic on it, or the whole policy if the critic fit has finished."""
    started = time.perf_counter()
    # Rollout
    experience = _collect(runner, for_critic=True)
    answer = _judge_rollout(runner, started)
    if answer == "open" or _explores_more(runner, experience, started):
        return
    # Train the whole policy if the fit has finished
    known = runner.parts.critic.explained(experience)
    if answer != "wait" and runner.parts.critic.is_done(known, runner.stage_steps):
        runner.parts.guard.keep_critic(runner.stage_steps - experience.steps)
        runner.phase = "training"
        # From here on, advantages use the critic's estimates.
        runner.parts.critic.trust(experience)
        _train_on(runner, experience, started)
        return
    # Train the critic
    metrics = runner.parts.critic.learn(experience, known)
    # Observation statistics are part of the policy, which must not change while the gate waits.
    if answer != "wait" and runner.parts.updates.absorb(experience):
        runner.parts.gate.changed(runner.parts.envs.monitor.counts.steps)
    runner.report("critic fit", metrics, started)


def train(runner: FineTuningRunner) -> None:
    """Play a rollout, let the gate judge it, and train on it unless the gate waits."""
    started = time.perf_counter()
    # Rollout
    experience = _collect(runner)
    answer = _judge_rollout(runner, started)
    if answer == "open":
        return
    # Wait for the gate
    if answer == "wait":
        # The policy is frozen until the gate has decided. Once the steps are spent, it is not trained again.
        runner.phase = "confirming"
        if not runner.is_spent:
            runner.parts.updates.hold(experience)
        runner.report("confirming", {}, started)
        return
    if runner.stage_steps - experience.steps >= runner.stage.max_steps:
        # These steps were played only for the gate, which stays shut.
        runner.report("confirming", {}, started)
        runner.go_on()
        return
    # Train
    if _explores_more(runner, experience, started):
        return
    _train_on(runner, experience, started)


def _explores_more(runner: FineTuningRunner, experience: Experience, started: float) -> bool:
    """Restore exploration if necessary, and return whether the policy was changed, so that the rollout is outdated."""
    if runner.deterministic or not runner.parts.explorer.look(
        experience, runner.parts.recent.episodes, runner.stage_steps
    ):
        return False
    # The old policy is neither the reference policy any more, nor the one to restore.
    runner.parts.guard.stop(runner.stage_steps)
    if runner.parts.explorer.raised:
        runner.parts.updates.anchor_here()
        runner.parts.stop_looking_back()
    runner.parts.recent.clear()
    runner.parts.updates.forget_held()
    runner.parts.gate.changed(runner.parts.envs.monitor.counts.steps)
    runner.report("exploring", {}, started)
    if runner.phase != "critic fit":
        runner.go_on()
    return True


def _train_on(runner: FineTuningRunner, experience: Experience, started: float) -> None:
    """Train on a rollout, and choose the next phase."""
    parts, until = runner.parts, runner.stage.until
    # Update
    metrics = parts.updates.learn(experience, runner.stage_steps)
    counts = parts.envs.monitor.counts
    parts.gate.changed(counts.steps)
    if not runner.deterministic and not runner.is_spent:
        parts.gate.propose(parts.recent.episodes, counts.begins, counts.steps)
    # Log
    runner.report("training", metrics, started)
    # Screening
    if runner.deterministic and parts.updates.number % SCREEN_EVERY == 0:
        parts.recent.episodes = parts.examiner.screen(parts.updates.number, until.window)
        runner.count(sum(episode.length for episode in parts.recent.episodes))
    # Next phase
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
    """Play one rollout with the current policy, and count its episodes."""
    experience, played = runner.parts.envs.collect(for_critic=for_critic)
    runner.count(experience.steps)
    # Leave out the first episode of each environment, because short ones finish first and would bias the mean.
    finished = [episode for episode in played if episode.number > 0]
    runner.parts.guard.note(finished)
    runner.parts.gate.note(played)
    runner.parts.recent.note(finished, counts=not runner.deterministic)
    return experience


def _judge_rollout(runner: FineTuningRunner, started: float) -> Answer:
    """Judge the episodes of a rollout before it is trained on, and return the gate's answer."""
    counts = runner.parts.envs.monitor.counts
    begins = counts.begins
    answers: set[Answer] = set()
    copy = int(begins.argmin())
    waits = runner.parts.gate.under_way and (runner.phase == "confirming" or runner.is_spent)
    if waits and counts.steps - int(begins[copy]) > MAX_EPISODE_STEPS:
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
        # The promising episodes have been used by the test and must not start another one.
        runner.parts.recent.clear()
    return "wait" if "wait" in answers else "go on"
