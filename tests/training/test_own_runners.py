"""Kinds of stage that somebody else writes: what is wrong with their runners becomes one sentence."""

import textwrap
from importlib import import_module

import numpy as np
import pytest
import torch
from building import curriculum, payloads

from rlstages import Environment, InputError, resume, train
from rlstages.errors import Fault
from rlstages.events import StageFinished
from rlstages.stages.runner import Result, runner_of

PACKAGE = """
    from dataclasses import dataclass
    from typing import ClassVar
    from rlstages import StageSpec
    from rlstages.stages.runner import Result

    @dataclass(frozen=True)
    class Jitter(StageSpec):
        runner: ClassVar[str] = "jitters:JitterRunner"
        name: str
        environment: object
        until: None = None
        evaluation_episodes: int = 0

    class JitterRunner:
        def __init__(self, context):
            self.stage_steps, self.result, self.steps, self.context = 0, None, 0, context

        def step(self):
            self.steps += 1
            if self.steps == 3:
                self.context.learner.hand_over()
                self.result = Result("completed", "Done.", None, None, None)

        def state_dict(self):
            return {"steps": self.steps}

        def load_state_dict(self, state):
            self.steps = state["steps"]

        def close(self):
            pass
"""


@pytest.fixture
def jitters(here, monkeypatch):
    """The module of an installed package with a kind of stage, as pip leaves one."""
    (here / "site").mkdir()
    (here / "site" / "jitters.py").write_text(textwrap.dedent(PACKAGE))
    about = here / "site" / "jitters-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: jitters\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[rlstages.stages]\nJitter = jitters:Jitter\n")
    monkeypatch.syspath_prepend(here / "site")
    monkeypatch.delitem(__import__("sys").modules, "jitters", raising=False)
    return import_module("jitters")


def plan(jitters):
    return curriculum(jitters.Jitter("jitter", Environment("toys:Always")))


def stop_after(number):
    asked = iter(range(number))
    return lambda learner: None if next(asked, None) is not None else "enough"


def test_a_kind_with_an_entry_point_trains_and_is_resumed(here, jitters):
    assert train(plan(jitters), out="run", watch=stop_after(2)).outcome == "paused"
    assert resume("run").outcome == "reached"
    assert [ended.outcome for ended in payloads(here / "run", StageFinished)] == ["completed"]


def test_a_kind_without_one_is_refused_before_anything_is_written(here, jitters):
    (here / "site" / "jitters-1.0.dist-info" / "entry_points.txt").unlink()
    with pytest.raises(InputError, match="stage 'jitter': Jitter of the module jitters could not be found"):
        train(plan(jitters), out="run")
    assert not (here / "run").exists()


@pytest.mark.parametrize("method", ["step", "state_dict", "load_state_dict", "close"])
def test_a_runner_without_a_method_is_refused(jitters, monkeypatch, method):
    monkeypatch.delattr(jitters.JitterRunner, method)
    with pytest.raises(InputError, match=f"stage 'jitter': its runner jitters:JitterRunner has no method {method},"):
        train(plan(jitters), out="run")


@pytest.mark.parametrize("runner", ["nowhere:Runner", "jitters:Other"])
def test_a_runner_that_is_not_there_is_refused(jitters, monkeypatch, runner):
    monkeypatch.setattr(jitters.Jitter, "runner", runner)
    with pytest.raises(InputError, match=f"stage 'jitter': its runner {runner} cannot be imported"):
        train(plan(jitters), out="run")


def test_so_is_one_whose_module_fails(here, jitters, monkeypatch):
    (here / "site" / "broken.py").write_text("1 / 0\n")
    monkeypatch.setattr(jitters.Jitter, "runner", "broken:Runner")
    with pytest.raises(InputError, match="cannot be imported .ZeroDivisionError"):
        runner_of(plan(jitters).stages[0])


@pytest.mark.parametrize("counter", ["stage_steps", "result"])
def test_a_runner_without_a_counter_stops_the_run(jitters, monkeypatch, counter):
    class Lacking(jitters.JitterRunner):
        def __init__(self, context):
            super().__init__(context)
            delattr(self, counter)

    monkeypatch.setattr(jitters, "JitterRunner", Lacking)
    with pytest.raises(Fault, match=f"Stage 'jitter': its runner .* is made without {counter}"):
        train(plan(jitters), out="run")


@pytest.mark.parametrize(
    "result, said",
    [
        ("done", "is 'done'; it is None while the stage is under way, and then a Result"),
        (Result("done", "Done.", None, None, None), "The outcome of a Result is 'done'"),
        (Result("completed", None, None, None, None), "The reason of a Result is None"),
        (Result("completed", "Done.", 0.5, None, None), "The before of a Result is 0.5"),
        (Result("collapsed", "Done.", None, None, None), "'collapsed', and nothing else, has a decline"),
    ],
)
def test_a_result_that_is_none_stops_the_run(jitters, monkeypatch, result, said):
    monkeypatch.setattr(jitters.JitterRunner, "step", lambda self: setattr(self, "result", result))
    with pytest.raises(Fault, match="Stage 'jitter': the result of its runner jitters:JitterRunner") as caught:
        train(plan(jitters), out="run")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "state, said",
    [
        (None, "state_dict of its runner jitters:JitterRunner returns None"),
        ({"seen": torch.zeros(2)}, "cannot be saved (runner/seen: tensor([0., 0.]) cannot be kept)"),
        ({"seen": np.array([None])}, "cannot be saved (runner/seen: arrays of object cannot be kept)"),
        ({"losses": [0.5, float("nan")]}, "cannot be saved (runner/losses/1: nan cannot be kept)"),
        ({"seen": {1, 2}}, "cannot be saved (runner/seen: {1, 2} cannot be kept)"),
    ],
)
def test_a_state_that_cannot_be_kept_stops_the_run(jitters, monkeypatch, state, said):
    monkeypatch.setattr(jitters.JitterRunner, "state_dict", lambda self: state)
    with pytest.raises(Fault, match="Stage 'jitter'") as caught:
        train(plan(jitters), out="run", watch=stop_after(1))
    assert said in str(caught.value)
