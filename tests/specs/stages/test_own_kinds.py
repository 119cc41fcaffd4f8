"""What is asked of a kind of stage that somebody else writes, and how one that does not answer is refused."""

from dataclasses import dataclass, field, make_dataclass

import pytest
from refusing import refusal, refused

from rlstages import (
    Agent,
    BehaviorCloning,
    Curriculum,
    Environment,
    Expert,
    FineTuning,
    StageSpec,
    SuccessThreshold,
)
from rlstages.specs.serialization import from_data, refuse_unfindable

POLE = Environment("CartPole-v1")
FIELDS = {"name": "jitter", "environment": POLE, "until": None, "evaluation_episodes": 0, "strength": 0.5}


def kind(frozen=True, lacking=(), **declared):
    """Return a kind of stage with these class attributes and properties, or without some."""
    fields = [(name, object, field(default=value)) for name, value in FIELDS.items() if name not in lacking]
    attributes = {"runner": "jitters:JitterRunner", **declared}
    namespace = {name: value for name, value in attributes.items() if name not in lacking}
    return make_dataclass("Jitter", fields, bases=(StageSpec,), namespace=namespace, frozen=frozen)


def answer(value):
    return property(lambda self: value)


def refusal_of(stage):
    return refusal(Curriculum, "odd", agent=Agent(), stages=[stage])


def test_a_kind_that_answers_is_taken():
    Curriculum("plain", agent=Agent(), stages=[kind()()])
    limited = kind(step_limit=answer(10), with_step_limit=lambda self, steps: self)()
    Curriculum("limited", agent=Agent(), stages=[limited])


@pytest.mark.parametrize("lacking", ["until", "evaluation_episodes", "runner"])
def test_what_every_kind_needs_is_asked_for(lacking):
    assert refusal_of(kind(lacking=[lacking])()) == ("kind-invalid", "curriculum 'odd'", "Jitter")


@pytest.mark.parametrize(
    "given, said",
    [
        ({"until": 0.9}, ("setting-type", "stage 'jitter'", "until")),
        ({"evaluation_episodes": "8"}, ("setting-type", "stage 'jitter'", "evaluation_episodes")),
        ({"environment": "CartPole-v1"}, ("setting-type", "stage 'jitter'", "environment")),
        ({"name": 5}, ("name-invalid", "Jitter", "name")),
    ],
)
def test_fields_of_other_types_are_refused(given, said):
    assert refusal_of(kind()(**given)) == said


@pytest.mark.parametrize(
    "declared, said",
    [
        ({"runner": 5}, ("kind-invalid", "stage 'jitter'", "runner")),
        ({"runner": "jitters.JitterRunner"}, ("kind-invalid", "stage 'jitter'", "runner")),
        ({"reinforces": "yes"}, ("setting-type", "stage 'jitter'", "reinforces")),
        ({"left_out_in": "scratch"}, ("kind-invalid", "stage 'jitter'", "left_out_in")),
        ({"goes_on_when_missed": answer(None)}, ("setting-type", "stage 'jitter'", "goes_on_when_missed")),
        ({"environments": answer(POLE)}, ("kind-invalid", "stage 'jitter'", "environments")),
        ({"experts": answer(["toys:tell"])}, ("kind-invalid", "stage 'jitter'", "experts")),
        ({"epoch_limit": answer(0.5)}, ("setting-type", "stage 'jitter'", "epoch_limit")),
        ({"demonstrations_needed": answer(True)}, ("kind-invalid", "stage 'jitter'", "demonstrations_needed")),
        ({"step_limit": answer(100)}, ("kind-invalid", "stage 'jitter'", "step_limit")),
    ],
)
def test_answers_of_other_types_are_refused(declared, said):
    assert refusal_of(kind(**declared)()) == said


def test_a_kind_is_a_frozen_dataclass_that_derives_from_stage_spec():
    assert refusal_of(kind(frozen=False)()) == ("kind-invalid", "curriculum 'odd'", "Jitter")
    undecorated = type("Jitter", (StageSpec,), {**FIELDS, "runner": "jitters:JitterRunner"})
    assert refusal_of(undecorated()) == ("kind-invalid", "curriculum 'odd'", "Jitter")

    @dataclass(frozen=True)
    class Stranger:
        name: str

    assert refusal_of(Stranger("jitter")) == ("setting-type", "curriculum 'odd'", "stages")


@pytest.mark.parametrize("name", ["runner", "reinforces", "left_out_in"])
def test_what_is_of_the_kind_is_no_field(name):
    with refused("kind-invalid", where="Jitter", name=name):
        make_dataclass("Jitter", [(name, object, field(default=None))], bases=(StageSpec,), frozen=True)


def test_a_runner_that_a_run_s_file_could_name_is_refused():
    named = make_dataclass("Named", [("runner", str, "jitters:JitterRunner")], frozen=True)
    fields = [(name, object, field(default=value)) for name, value in FIELDS.items()]
    mixed = make_dataclass("Jitter", fields, bases=(StageSpec, named), frozen=True)
    assert refusal_of(mixed()) == ("kind-invalid", "curriculum 'odd'", "Jitter")


def test_a_kind_without_an_entry_point_is_refused_with_what_to_write():
    for findable in (
        BehaviorCloning("clone", POLE, expert=Expert("toys:tell")),
        FineTuning("tune", POLE, until=SuccessThreshold(0.9), max_steps=10),
    ):
        refuse_unfindable(findable, "rlstages.stages")
    with refused("kind-invalid", where="types", name="Jitter"):
        refuse_unfindable(kind()(), "rlstages.stages")


def test_a_kind_that_is_not_installed_is_said_to_be_missing():
    with refused("name-unknown", name="type"):
        from_data({"$type": "Wobble"})


def test_a_kind_reads_well_and_has_a_remedy_without_saying_so():
    assert str(kind()()) == "Jitter in CartPole-v1"
    told = str(kind()(until=SuccessThreshold(0.9), strength=2.0))
    assert told == "Jitter in CartPole-v1 until success of at least 0.9; strength=2.0"
    assert kind()().remedy.endswith("train again.")
