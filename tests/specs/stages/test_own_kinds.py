"""What is asked of a kind of stage that somebody else writes, and how one that does not answer is refused."""

from dataclasses import dataclass, field, make_dataclass

import pytest

from rlstages import (
    Agent,
    BehaviorCloning,
    Curriculum,
    Environment,
    Expert,
    FineTuning,
    InputError,
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


def sentence(stage):
    with pytest.raises(InputError) as caught:
        Curriculum("odd", agent=Agent(), stages=[stage])
    return str(caught.value)


def test_a_kind_that_answers_is_taken():
    Curriculum("plain", agent=Agent(), stages=[kind()()])
    limited = kind(step_limit=answer(10), with_step_limit=lambda self, steps: self)()
    Curriculum("limited", agent=Agent(), stages=[limited])


@pytest.mark.parametrize("lacking", ["until", "evaluation_episodes", "runner"])
def test_what_every_kind_needs_is_asked_for(lacking):
    assert f"Jitter has no {lacking}, which every kind of stage needs" in sentence(kind(lacking=[lacking])())


@pytest.mark.parametrize(
    "given, said",
    [
        ({"until": 0.9}, "stage 'jitter': until is 0.9; give a criterion"),
        ({"evaluation_episodes": "8"}, "stage 'jitter': evaluation_episodes is '8'; give a whole number of at least 0"),
        ({"environment": "CartPole-v1"}, "stage 'jitter': the environment is 'CartPole-v1'; wrap it"),
        ({"name": 5}, "Jitter: the name is 5"),
    ],
)
def test_fields_of_other_types_are_refused(given, said):
    assert said in sentence(kind()(**given))


@pytest.mark.parametrize(
    "declared, said",
    [
        ({"runner": 5}, "stage 'jitter': runner is 5; give 'module:Class'"),
        ({"runner": "jitters.JitterRunner"}, "runner is 'jitters.JitterRunner'; give 'module:Class'"),
        ({"reinforces": "yes"}, "reinforces is 'yes'; give True or False"),
        ({"left_out_in": "scratch"}, "left_out_in is 'scratch'; give frozenset({'scratch'})"),
        ({"goes_on_when_missed": answer(None)}, "goes_on_when_missed is None; give True or False"),
        ({"environments": answer(POLE)}, "environments is an Environment; give a tuple of Environment(...)"),
        ({"experts": answer(["toys:tell"])}, "experts is ['toys:tell']; give a tuple of Expert(...)"),
        ({"epoch_limit": answer(0.5)}, "epoch_limit is 0.5; give a whole number of at least 1"),
        ({"demonstrations_needed": answer(True)}, "demonstrations_needed of Jitter is no text"),
        ({"step_limit": answer(100)}, "Jitter has a step_limit, but no field max_steps for `resume --max-steps`"),
    ],
)
def test_answers_of_other_types_are_refused(declared, said):
    assert said in sentence(kind(**declared)())


def test_a_kind_is_a_frozen_dataclass_that_derives_from_stage_spec():
    assert "Jitter is no frozen dataclass; write @dataclass(frozen=True)" in sentence(kind(frozen=False)())
    undecorated = type("Jitter", (StageSpec,), {**FIELDS, "runner": "jitters:JitterRunner"})
    assert "Jitter is no frozen dataclass" in sentence(undecorated())

    @dataclass(frozen=True)
    class Stranger:
        name: str

    assert "each is a StageSpec such as BehaviorCloning(...)" in sentence(Stranger("jitter"))


@pytest.mark.parametrize("name, hint", [("runner", "str"), ("reinforces", "bool"), ("left_out_in", "frozenset[str]")])
def test_what_is_of_the_kind_is_no_field(name, hint):
    with pytest.raises(InputError, match="is declared as a field") as caught:
        make_dataclass("Jitter", [(name, object, field(default=None))], bases=(StageSpec,), frozen=True)
    assert f"Jitter: {name} is declared as a field; write '{name}: ClassVar[{hint}] = ...'" in str(caught.value)


def test_a_runner_that_a_run_s_file_could_name_is_refused():
    named = make_dataclass("Named", [("runner", str, "jitters:JitterRunner")], frozen=True)
    fields = [(name, object, field(default=value)) for name, value in FIELDS.items()]
    mixed = make_dataclass("Jitter", fields, bases=(StageSpec, named), frozen=True)
    assert "runner is a field of Jitter; declare it as a ClassVar" in sentence(mixed())


def test_a_kind_without_an_entry_point_is_refused_with_what_to_write():
    for findable in (
        BehaviorCloning("clone", POLE, expert=Expert("toys:tell")),
        FineTuning("tune", POLE, until=SuccessThreshold(0.9), max_steps=10),
    ):
        refuse_unfindable(findable, "rlstages.stages")
    with pytest.raises(InputError, match=r'project.entry-points."rlstages.stages"') as caught:
        refuse_unfindable(kind()(), "rlstages.stages")
    assert 'Jitter = "module:Jitter"' in str(caught.value)


def test_a_kind_that_is_not_installed_is_said_to_be_missing():
    with pytest.raises(InputError, match="unknown type 'Wobble'. No installed package adds it"):
        from_data({"$type": "Wobble"})


def test_a_kind_reads_well_and_has_a_remedy_without_saying_so():
    assert str(kind()()) == "Jitter in CartPole-v1"
    told = str(kind()(until=SuccessThreshold(0.9), strength=2.0))
    assert told == "Jitter in CartPole-v1 until success of at least 0.9; strength=2.0"
    assert kind()().remedy.endswith("train again.")
