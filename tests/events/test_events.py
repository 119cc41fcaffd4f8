import dataclasses
import json
import math

import pytest
from hypothesis import given
from refusing import refused
from strategies import curricula, some

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert
from rlstages.events import (
    BaselinesMeasured,
    DemonstrationsReady,
    EpochFinished,
    Evaluated,
    Event,
    ExplorationMeasured,
    HandoverChecked,
    HandoverRecovered,
    Judged,
    LookedBack,
    Payload,
    Retained,
    RetentionMeasured,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageCollapsed,
    StageFinished,
    StageStarted,
    Warned,
)
from rlstages.events.privacy import without_paths
from rlstages.specs.criteria import RewardThreshold, SuccessThreshold
from rlstages.specs.criteria.baselines import Baselines
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Episode, score
from rlstages.specs.loading import load_curriculum
from rlstages.specs.serialization import from_data, to_data

SCORE = score([Episode(0, i, float(i), 5, i > 1) for i in range(4)])
VERDICT = SuccessThreshold(0.9).judge([Episode(0, i, 1.0, 5, True) for i in range(100)])
DECLINE = Decline(True, "success", 0.2, 0.4, 0.7, 16)
PAYLOADS = [
    RunStarted("abcd", load_curriculum("rooms"), 3, {"python": "3.11"}, resumed=True),
    StageStarted("FineTuning", "train", max_steps=10, criterion="success", threshold=0.9),
    DemonstrationsReady("plan", "demonstrations/a", "0" * 64, SCORE, 2),
    EpochFinished(1, {"loss": 0.5, "held_out_loss": 1}, True),
    Evaluated("before", SCORE),
    RolloutFinished("training", 512, 0, None, None, None, None, 0.9, {"kl": 0.1}, 1e4, "0 of 50 episodes"),
    Judged(1, 600, VERDICT),
    ExplorationMeasured(2048, 0.3, 0.02, None, "success 0.00 at the start"),
    HandoverChecked(1, 700, SCORE, SCORE, 0.01, True, True),
    HandoverRecovered(900, 300),
    BaselinesMeasured("easy", Baselines(SCORE, None, "the curriculum names no expert")),
    RetentionMeasured((Retained("easy", "success", SCORE, 0.5),), (Retained("far", "return", None, None),), 99, 1.5),
    LookedBack(1, "two rooms", 700, DECLINE, True),
    StageCollapsed("two rooms", "it is lost", 700, 1.5, DECLINE, "policies/b", "0" * 64, None, 2),
    StageFinished("reached", "it is", 600, 1.5, None, SCORE, VERDICT, "policies/a", "0" * 64, None),
    Warned("Vorsicht\n\u2028 😀 \udc80"),
    RunFinished("reached", "The curriculum is done."),
]


def through_json(event):
    line = event.to_json().encode(errors="backslashreplace")
    assert b"\n" not in line
    return Event.from_data(json.loads(line))


def test_there_is_an_example_of_every_kind_of_event():
    own = {kind for kind in Payload.__subclasses__() if kind.__module__.startswith("rlstages.")}
    assert {type(p) for p in PAYLOADS} == own


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda p: type(p).__name__)
def test_an_event_comes_back_equal_from_one_line(payload):
    event = Event(payload, 1234, 2, "six rooms", 1.7e9)
    assert through_json(event) == event


@some
@given(curricula)
def test_any_curriculum_passes_through_an_event(curriculum):
    shown = from_data(without_paths(to_data(curriculum)))
    assert through_json(Event(RunStarted("a", curriculum, 0, {}), 0)).payload.curriculum == shown


def test_the_log_holds_no_absolute_path_and_the_names_of_stages_stay_apart():
    stages = [
        BehaviorCloning("/a/x", Environment("CartPole-v1"), demonstrations="/home/me/shown.npz"),
        BehaviorCloning("/b/x", Environment("CartPole-v1", file="/home/me/map.xml"), expert=Expert("/home/me/run")),
    ]
    event = Event(RunStarted("a", Curriculum("c", agent=Agent("PPO"), stages=stages), 0, {}), 0)
    assert "/home" not in event.to_json()
    first, second = through_json(event).payload.curriculum.stages
    assert (first.name, first.demonstrations) == ("/a/x", "shown.npz")
    assert (second.name, second.expert.source, second.environment.kwargs["file"]) == ("/b/x", "run", "map.xml")
    assert through_json(Event(Warned("no room in '/home/me/runs/a' now"), 0)).payload.message == "no room in 'a' now"


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda p: type(p).__name__)
def test_no_field_hides_the_events_own(payload):
    own = {"v", "type", "time", "global_step", "stage_index", "stage_name"}
    assert not own & {field.name for field in dataclasses.fields(payload)}
    assert own < set(json.loads(Event(payload, 0).to_json()))


def test_logs_of_before_recorded_steps_were_kept_count_those_of_the_episodes_that_were():
    shown = DemonstrationsReady("plan", "demonstrations/a", "0" * 64, SCORE, 2, recorded_steps=900)
    data = json.loads(Event(shown, 0).to_json())
    before = Event.from_data({key: value for key, value in data.items() if key != "recorded_steps"})

    assert (through_json(Event(shown, 0)).payload.cost, before.payload.cost) == (900, SCORE.steps)


def test_numbers_that_are_not_finite_become_null():
    nothing = RewardThreshold(10).judge([])
    assert math.isnan(nothing.value) and math.isinf(nothing.bound)
    back = through_json(Event(Judged(1, 0, nothing), 0)).payload.verdict
    assert back == dataclasses.replace(nothing, value=None, bound=None)
    assert through_json(Event(EpochFinished(1, {"loss": math.inf}, False), 0)).payload.metrics == {"loss": None}


def test_time_is_kept_to_the_millisecond_and_set_by_itself():
    assert through_json(Event(Warned("a"), 0, time=1.23456)).time == 1.235
    assert Event(Warned("a"), 0).time > 1.7e9


WHOLE = json.loads(Event(Warned("a"), 0).to_json())


@pytest.mark.parametrize(
    "data, said",
    [
        ({}, ("file-damaged", "", "v")),
        ({**WHOLE, "v": 2}, ("file-damaged", "", "v")),
        ({k: v for k, v in WHOLE.items() if k != "time"}, ("file-damaged", "", "")),
        ({k: v for k, v in WHOLE.items() if k != "type"}, ("file-damaged", "", "")),
        ({**WHOLE, "type": "Warmed"}, ("name-unknown", "", "type")),
        ({**WHOLE, "type": "Agent"}, ("file-damaged", "", "Agent")),
        ({**WHOLE, "type": "Linear", "start": 1, "end": 2} | {"message": None}, ("file-damaged", "", "Linear")),
        ({**WHOLE, "more": 1}, ("file-damaged", "", "Warned")),
    ],
)
def test_what_is_no_event_is_refused(data, said):
    with refused(*said):
        Event.from_data(data)


def test_a_spec_is_no_event():
    data = {k: v for k, v in WHOLE.items() if k != "message"} | {"type": "Linear", "start": 1, "end": 2}
    with refused("file-damaged", name="type"):
        Event.from_data(data)
