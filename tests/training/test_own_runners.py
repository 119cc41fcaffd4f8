"""Kinds of stage that somebody else writes: what is wrong with their runners becomes one sentence."""

import textwrap
from importlib import import_module

import numpy as np
import pytest
import torch
from building import curriculum, payloads
from refusing import refused

from rlstages import Environment, resume, train
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
    with refused("kind-invalid", where="stage 'jitter': jitters", name="Jitter"):
        train(plan(jitters), out="run")
    assert not (here / "run").exists()


@pytest.mark.parametrize("method", ["step", "state_dict", "load_state_dict", "close"])
def test_a_runner_without_a_method_is_refused(jitters, monkeypatch, method):
    monkeypatch.delattr(jitters.JitterRunner, method)
    with refused("kind-invalid", where="stage 'jitter'", name="runner"):
        train(plan(jitters), out="run")


@pytest.mark.parametrize("runner", ["nowhere:Runner", "jitters:Other"])
def test_a_runner_that_is_not_there_is_refused(jitters, monkeypatch, runner):
    monkeypatch.setattr(jitters.Jitter, "runner", runner)
    with refused("import-failed", where="stage 'jitter'", name="runner"):
        train(plan(jitters), out="run")


def test_so_is_one_whose_module_fails(here, jitters, monkeypatch):
    (here / "site" / "broken.py").write_text("1 / 0\n")
    monkeypatch.setattr(jitters.Jitter, "runner", "broken:Runner")
    with refused("import-failed", where="stage 'jitter'", name="runner"):
        runner_of(plan(jitters).stages[0])


@pytest.mark.parametrize("counter", ["stage_steps", "result"])
def test_a_runner_without_a_counter_stops_the_run(jitters, monkeypatch, counter):
    class Lacking(jitters.JitterRunner):
        def __init__(self, context):
            super().__init__(context)
            delattr(self, counter)

    monkeypatch.setattr(jitters, "JitterRunner", Lacking)
    with refused("runner-invalid", where="stage 'jitter'", kind=Fault):
        train(plan(jitters), out="run")


@pytest.mark.parametrize(
    "result, said",
    [
        ("done", ("runner-invalid", "stage 'jitter'", "result")),
        (Result("done", "Done.", None, None, None), ("runner-invalid", "stage 'jitter'", "result")),
        (Result("completed", None, None, None, None), ("runner-invalid", "stage 'jitter'", "result")),
        (Result("completed", "Done.", 0.5, None, None), ("runner-invalid", "stage 'jitter'", "result")),
        (Result("collapsed", "Done.", None, None, None), ("runner-invalid", "stage 'jitter'", "result")),
    ],
)
def test_a_result_that_is_none_stops_the_run(jitters, monkeypatch, result, said):
    monkeypatch.setattr(jitters.JitterRunner, "step", lambda self: setattr(self, "result", result))
    with refused(*said, kind=Fault):
        train(plan(jitters), out="run")


@pytest.mark.parametrize(
    "state, said",
    [
        (None, ("runner-invalid", "stage 'jitter'", "state_dict")),
        ({"seen": torch.zeros(2)}, ("runner-invalid", "stage 'jitter'", "state_dict")),
        ({"seen": np.array([None])}, ("runner-invalid", "stage 'jitter'", "state_dict")),
        ({"losses": [0.5, float("nan")]}, ("runner-invalid", "stage 'jitter'", "state_dict")),
        ({"seen": {1, 2}}, ("runner-invalid", "stage 'jitter'", "state_dict")),
    ],
)
def test_a_state_that_cannot_be_kept_stops_the_run(jitters, monkeypatch, state, said):
    monkeypatch.setattr(jitters.JitterRunner, "state_dict", lambda self: state)
    with refused(*said, kind=Fault):
        train(plan(jitters), out="run", watch=stop_after(1))
