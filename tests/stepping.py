"""A fine-tuning stage that is stepped by hand, shared by several test modules."""

import torch
from building import Recorder, agent, learner_for

from rlstages.events import Event, RolloutFinished
from rlstages.stages.fine_tuning.runner import FineTuningRunner


class Tune:
    def __init__(self, stage, learner=None, index=0, seed=0, shown=None, **settings):
        self.learner = learner or learner_for(stage.environment, agent(**settings), seed)
        self.recorder = Recorder()
        emit = lambda payload: self.recorder(Event(payload, self.learner.global_step))  # noqa: E731
        self.runner = FineTuningRunner(stage, index, self.learner, seed, emit, shown=shown)

    def steps(self, number):
        for _ in range(number):
            self.runner.step()
        return self

    def finish(self):
        while self.runner.result is None:
            self.runner.step()
        self.runner.close()
        return self.runner.result

    def rollouts(self):
        return self.recorder.payloads(RolloutFinished)


def cloned(learner):
    learner.objective = "cloning"
    learner.trust()
    return learner


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())
