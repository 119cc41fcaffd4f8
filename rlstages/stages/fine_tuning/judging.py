"""The phases of fine-tuning in which the policy is judged and not trained. Each function makes one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlstages.events import Judged, Warned
from rlstages.specs.algorithms.base import CRITIC_FIT
from rlstages.stages.fine_tuning.critic_fit import AFTER_A_DROP_STEPS
from rlstages.stages.runner import Result

if TYPE_CHECKING:
    from rlstages.stages.fine_tuning.runner import FineTuningRunner


LEVEL_SHARE = 0.25
_DEAR_LEVEL = (
    "To measure what the stage before had reached took {spent:,} of this stage's {most:,} steps; "
    "raise max_steps, or leave on_collapse out."
)


def start(runner: FineTuningRunner) -> None:
    """Score the policy before the stage, and measure the level of the stage before."""
    if runner.stage.on_collapse == "return" and runner.parts.look_back is None:
        times = runner.stage.max_returns
        runner.emit(Warned(f"Stage {runner.stage.name!r} has gone back {times} times; now it goes on."))
    played = runner.parts.examiner.play(runner.stage.evaluation_episodes)
    runner.before = runner.parts.examiner.score("before", played)
    # An untrained network is not certain of anything.
    runner.parts.explorer.begin(played if runner.learner.objective is not None else [])
    if runner.parts.look_back is not None:
        spent = runner.parts.look_back.begin()
        runner.count(spent)
        if spent > LEVEL_SHARE * runner.stage.max_steps:
            runner.emit(Warned(_DEAR_LEVEL.format(spent=spent, most=runner.stage.max_steps)))
    policy = runner.learner.policy
    if runner.learner.objective == "cloning":
        runner.learner.algorithm.rebuild_optimizers()
        runner.cloned = True
        runner.parts.critic.begin(runner.stage.critic_fit_steps or 0)
        runner.parts.guard.begin(played, runner.parts.critic.until)
    if runner.stage.exploration is not None and hasattr(policy, "log_std"):
        with torch.no_grad():
            policy.log_std.fill_(runner.stage.exploration)
    if not runner.deterministic:
        runner.parts.gate.begin(0)
    runner.learner.objective = "reinforcement"
    runner.phase = "critic fit" if runner.parts.critic.until else "training"


def check_handover(runner: FineTuningRunner) -> None:
    """Let the policy play the clone's episodes, and restore the clone after a significant drop."""
    played = runner.parts.examiner.play_again(runner.parts.guard.waves)
    runner.count(sum(episode.length for episode in played))
    back = runner.parts.guard.judge(played, runner.stage_steps)
    if back:
        # These episodes belong to a policy that no longer exists.
        runner.parts.recent.clear()
        runner.parts.gate.end()
        fits = CRITIC_FIT in runner.learner.agent.algorithm.supports
        if runner.stage.critic_fit_steps is None and fits:
            runner.parts.critic.begin(runner.stage_steps + AFTER_A_DROP_STEPS)
    if back is not None:
        runner.go_on()
    if back and runner.parts.critic.until > runner.stage_steps:
        runner.phase = "critic fit"


def confirm(runner: FineTuningRunner) -> None:
    """Play one wave of a confirmation with the frozen policy, which acts deterministically."""
    before = len(runner.parts.examiner.episodes)
    verdict = runner.parts.examiner.judge(runner.stage.until)
    runner.count(sum(episode.length for episode in runner.parts.examiner.episodes[before:]))
    runner.emit(Judged(runner.parts.examiner.attempt, runner.stage_steps, verdict))
    if verdict.met:
        runner.pass_gate(verdict, runner.parts.examiner.episodes)
    elif verdict.futile:
        runner.verdict = verdict
        # The promising episodes have been used by the test and must not start another one.
        runner.parts.recent.clear()
        runner.go_on()


def look_back(runner: FineTuningRunner) -> None:
    """Play in the environment of the stage before, and leave the stage if the skill of that stage is lost."""
    assert runner.parts.look_back is not None
    runner.count(runner.parts.look_back.play())
    decline, over = runner.parts.look_back.judge(runner.stage_steps)
    if decline.lost:
        reason = f"What the stage before had reached is lost: {decline}."
        runner.result = Result("collapsed", reason, runner.before, None, None, decline=decline)
    elif over:
        runner.go_on()
