"""Stages that are stepped by hand, shared by several test modules."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from building import Recorder, agent, learner_for

from rlstages.events import Event, RolloutFinished
from rlstages.stages.context import StageContext
from rlstages.stages.fine_tuning.runner import FineTuningRunner


@dataclass(frozen=True)
class Alone(StageContext):
    """The context of a stage without a run."""

    shown: Any = None

    def demonstrated(self):
        return self.shown


def context_for(stage, learner, seed=0, emit=lambda payload: None, *, before=(), index=0, run=Path("none"), shown=None):
    """The context of a stage that is the index-th one that is entered, and comes after these."""
    way = (0,) * index + (len(before),)
    return Alone(learner, seed, emit, run, (*before, stage), way, shown=shown)


class Stepped:
    """A stage that is stepped by hand; `where` is what its context has besides."""

    def __init__(self, kind, stage, learner, seed, settings, **where):
        self.learner = learner or learner_for(stage.environment, agent(**settings), seed)
        self.recorder = Recorder()
        emit = lambda payload: self.recorder(Event(payload, self.learner.global_step))  # noqa: E731
        self.runner = kind(context_for(stage, self.learner, seed, emit, **where))

    def finish(self):
        while self.runner.result is None:
            self.runner.step()
        self.runner.close()
        return self.runner.result


class Tune(Stepped):
    def __init__(self, stage, learner=None, index=0, seed=0, shown=None, before=(), **settings):
        super().__init__(FineTuningRunner, stage, learner, seed, settings, before=before, index=index, shown=shown)

    def steps(self, number):
        for _ in range(number):
            self.runner.step()
        return self

    def rollouts(self):
        return self.recorder.payloads(RolloutFinished)


def cloned(learner):
    learner.objective = "cloning"
    learner.trust()
    return learner


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())
