"""The events of a run as the trainer would emit them: a clone, a stage that passes at its second try, and a miss.

The second try takes two waves.
"""

import dataclasses
import math

import numpy as np

from rlstages.events import (
    DemonstrationsReady,
    EpochFinished,
    Evaluated,
    Event,
    Judged,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Warned,
)
from rlstages.specs.agent import Agent
from rlstages.specs.criteria import RewardThreshold, spend
from rlstages.specs.criteria.episodes import Episode, score
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.stages.cloning import BehaviorCloning
from rlstages.specs.stages.fine_tuning import FineTuning

BEGAN = 1_700_000_000.0
DEMONSTRATIONS = "demonstrations/copy.npz"


def curriculum(demonstrations="/home/someone/private/shown.npz"):
    return Curriculum(
        "balance",
        agent=Agent("PPO", n_envs=8),
        stages=[
            BehaviorCloning("copy", Environment("CartPole-v1"), demonstrations=demonstrations, max_epochs=3),
            FineTuning("short", Environment("CartPole-v1"), until=RewardThreshold(100, worst=0.0), max_steps=40_000),
            BehaviorCloning("again", Environment("CartPole-v1"), demonstrations=demonstrations, max_epochs=2),
            FineTuning("long", Environment("CartPole-v1"), until=RewardThreshold(400), max_steps=60_000),
        ],
    )


def episodes(mean, number=40, seed=0):
    returns = np.random.default_rng(seed).normal(mean, 10, number)
    return [Episode(i % 8, i // 8, float(r), int(r)) for i, r in enumerate(returns)]


class Story:
    """Collects events; time and steps move on as told."""

    def __init__(self):
        self.plan = curriculum()
        self.events = []
        self.time, self.step, self.index = BEGAN, 0, -1

    def tell(self, payload, seconds=1.0, steps=0):
        self.time, self.step = self.time + seconds, self.step + steps
        name = self.plan.stages[self.index].name if self.index >= 0 else ""
        self.events.append(Event(payload, self.step, self.index, name, self.time))

    def clone(self, epochs):
        self.index += 1
        stage = self.plan.stages[self.index]
        self.tell(StageStarted("BehaviorCloning", str(stage), max_epochs=stage.max_epochs))
        shown = score(episodes(180, 20))
        self.tell(DemonstrationsReady("/home/someone/private/shown.npz", DEMONSTRATIONS, "d" * 64, shown, 2))
        self.tell(Evaluated("before", score(episodes(20))), steps=800)
        for epoch in range(1, epochs + 1):
            numbers = {"loss": 0.7 / epoch, "held_out_loss": 0.8 / epoch, "accuracy": 1 - 0.4 / epoch}
            self.tell(EpochFinished(epoch, numbers, best=True), seconds=2.5)
        after = score(episodes(120))
        self.tell(Evaluated("after", after), steps=4_000)
        self._finish("completed", "all epochs are done", 4_800, None, after, "d" * 64)

    def fine_tune(self, means, judged, outcome):
        self.index += 1
        stage = self.plan.stages[self.index]
        limit = stage.until.threshold
        self.tell(StageStarted("FineTuning", str(stage), stage.max_steps, None, str(stage.until), limit), seconds=0.1)
        steps = 0
        for number, mean in enumerate(means):
            steps += 1_024
            value = None if number == 0 else mean
            train = {"loss": 0.5, "approx_kl": 0.01, "broken": math.nan}
            phase = "critic fit" if number < 2 else "training"
            waiting = f"return {mean:g} over the last 30 episodes, {limit:g} wanted"
            payload = RolloutFinished(
                phase, steps, 0 if number == 0 else 30, value, None, value, value, limit, train, 4_096.0, waiting
            )
            self.tell(payload, seconds=0.5, steps=1_024)
        verdict = None
        for attempt, mean, number in judged:
            verdict = stage.until.judge(episodes(mean, number), spend(attempt))
            steps += 5_000
            self.tell(Judged(attempt, steps, verdict), steps=5_000)
        self._finish(outcome, "the reason", steps, verdict, score(episodes(means[-1])), "a" * 64)

    def _finish(self, outcome, reason, steps, verdict, after, parent):
        name = self.plan.stages[self.index].name
        before = score(episodes(20))
        digest = f"{self.index:x}" * 64
        payload = StageFinished(
            outcome, reason, steps, 62.0, before, after, verdict, f"policies/{name}.safetensors", digest, parent
        )
        self.tell(payload)


def story():
    told = Story()
    told.tell(RunStarted("abcd1234", told.plan, 7, {"python": "3.11.7", "rlstages": "0.1.0"}))
    told.clone(3)
    told.fine_tune([40, 60, 80, 95, 105, 110] * 4, [(1, 80, 40), (2, 112, 12), (2, 112, 60)], "reached")
    told.tell(Warned("rewards of 1e30 were seen\x1b[31m in 'CartPole-v1'"))
    told.clone(2)
    told.fine_tune([150, 200, 250], [(1, 250, 60)], "missed")
    told.index = -1
    told.tell(RunFinished("missed", "'long' did not reach a mean return of at least 400 within 60,000 steps"))
    return told.plan, told.events


def files(directory):
    """Write the files that the events name."""
    for name in (DEMONSTRATIONS, *(f"policies/{stage}.safetensors" for stage in ("copy", "short", "again", "long"))):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(name.encode() * 10)


def later(event, seconds):
    """Return the event, so many seconds and steps later."""
    return dataclasses.replace(event, time=event.time + seconds, global_step=event.global_step + seconds)
