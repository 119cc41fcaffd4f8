import copy
import json
import math
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refused
from strategies import agents, clonings, criteria, curricula, environments, experts, fine_tunings, keys, plain, some

from rlstages import Agent, Curriculum, Environment, Expert, InputError
from rlstages.specs.plain import FrozenDict, freeze, thaw
from rlstages.specs.serialization import (
    digest,
    dumps,
    from_data,
    loads,
    require_types,
    to_data,
)


def through_json(spec):
    return from_data(json.loads(json.dumps(to_data(spec), allow_nan=False)))


@some
@given(environments | agents | experts | clonings | fine_tunings | criteria)
def test_every_spec_comes_back_equal_from_json(spec):
    back = through_json(spec)
    assert back == spec and type(back) is type(spec)
    assert hash(back) == hash(spec)
    assert digest(back) == digest(spec)
    assert str(back) == str(spec)


@some
@given(curricula)
def test_every_curriculum_comes_back_equal_from_its_json(curriculum):
    back = Curriculum.from_json(curriculum.to_json())
    assert back == curriculum
    assert back.digest == curriculum.digest
    assert str(back) == str(curriculum)


@some
@given(plain)
def test_plain_data_comes_back_frozen(data):
    plainly = to_data(data)
    assert from_data(plainly) == freeze(data)
    assert loads(dumps(plainly)) == plainly


@some
@given(st.dictionaries(keys, st.integers(), min_size=2, max_size=5))
def test_the_digest_does_not_depend_on_the_order_of_keys(items):
    turned = dict(reversed(items.items()))
    assert digest(Environment("a", kwargs=items)) == digest(Environment("a", kwargs=turned))


def test_a_changed_setting_changes_the_digest():
    assert digest(Agent(n_envs=4)) != digest(Agent(n_envs=5))
    assert digest(Environment("a", x=1)) != digest(Environment("a", x=1.5))


def test_fields_that_came_later_do_not_change_the_digests_of_before():
    before = "2908ae99c47f37121964795be1b7815dfe143300a6ce199074b61fb3584ce29c"
    assert digest(Environment("CartPole-v1", success=1.0)) == before
    assert digest(Environment("CartPole-v1", success=1.0, success_at="any")) != before
    before = "b484d7992e0adb21e2ee660d2321d79054fd9a1997e0aee0a4051ad3f82e1de5"
    assert digest(Expert("toys:tell", episodes=3)) == before
    assert digest(Expert("a.zip")) != digest(Expert("a.zip", normalize="a.pkl"))


def test_the_digest_is_the_same_in_every_process():
    code = (
        "from rlstages import Environment; from rlstages.specs.serialization import digest;"
        "print(digest(Environment('a:b', wrappers=['c:d'], kwargs={'z': {'y': 1, 'x': [2]}, 'b': 'ü'})))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "12345")
    }
    assert len(found) == 1 and len(found.pop()) == 64


@pytest.mark.parametrize(
    "data, said",
    [
        ({"$type": "Agnet"}, ("name-unknown", "", "type")),
        ({"$type": 5}, ("name-unknown", "", "type")),
        ({"$type": None}, ("name-unknown", "", "type")),
        ({"$type": ["Agent"]}, ("name-unknown", "", "type")),
        ({"$type": "Agent", "colour": 1}, ("file-damaged", "", "Agent")),
        ({"$type": "SuccessThreshold"}, ("file-damaged", "", "SuccessThreshold")),
        ({"$type": "SuccessThreshold", "threshold": "0.9"}, ("setting-type", "SuccessThreshold", "threshold")),
        ({"$type": "SuccessThreshold", "threshold": math.nan}, ("setting-range", "SuccessThreshold", "threshold")),
        ({"$type": "RewardThreshold", "threshold": 10**400}, ("setting-range", "RewardThreshold", "threshold")),
        ({"$type": "Environment", "id": None}, ("name-invalid", "Environment", "")),
        ({"$type": "Environment", "id": "a", "kwargs": 5}, ("setting-type", "Environment('a')", "kwargs")),
        ({"$type": "Environment", "id": "a", "wrappers": 5}, ("setting-type", "Environment('a')", "wrappers")),
        ({"$type": "Environment", "id": "a", "wrappers": [5]}, ("name-invalid", "Environment('a')", "")),
        ({"$type": "Environment", "id": "a", "success": {}}, ("setting-type", "Environment('a')", "success")),
        ({"$type": "Environment", "id": "a", "vectorize": []}, ("choice-unknown", "Environment('a')", "vectorize")),
        ({"$type": "Expert", "source": ["a"]}, ("name-invalid", "Expert", "")),
        ({"$type": "Expert", "source": ""}, ("setting-missing", "Expert", "source")),
        ({"$type": "Agent", "network": 5}, ("setting-type", "Agent", "network")),
        ({"$type": "Agent", "learning_rate": {"$type": "Agent"}}, ("setting-type", "PPO", "learning_rate")),
        ({"$type": "Agent", "normalize_rewards": "false"}, ("setting-type", "Agent", "normalize_rewards")),
        ({"$type": "AllOf", "first": 1, "second": 2}, ("setting-type", "AllOf", "")),
        ({"$type": "BehaviorCloning", "name": "a", "environment": "b"}, ("setting-type", "stage 'a'", "environment")),
        ({"$type": "Curriculum", "name": "a", "agent": 1, "stages": []}, ("setting-type", "curriculum 'a'", "agent")),
        (
            {"$type": "Curriculum", "name": "a", "agent": {"$type": "Agent"}, "stages": 5},
            ("setting-missing", "curriculum 'a'", "stages"),
        ),
    ],
)
def test_data_that_is_no_spec_is_refused_in_one_sentence(data, said):
    with refused(*said):
        from_data(data)


damaged_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(max_size=4) | st.just("$type"), inner, max_size=2)
        | st.dictionaries(st.just("$type"), st.sampled_from(["Agent", "Linear", "Environment", "AllOf"]), min_size=1)
    ),
    max_leaves=4,
)


@settings(some, max_examples=150)
@given(environments | experts | agents | fine_tunings | clonings, st.data())
def test_no_damage_to_the_data_brings_out_another_error_than_input_error(spec, data):
    plainly = json.loads(json.dumps(to_data(spec)))
    field = data.draw(st.sampled_from([key for key in plainly if key != "$type"]))
    plainly[field] = data.draw(damaged_values)
    try:
        back = from_data(plainly)
    except InputError:
        return
    assert type(back) is type(spec)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nul",
        "[1, 2",
        '{"$type": "Agent", "gamma": NaN}',
        '{"a": Infinity}',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        "9" * 5_000,
        "5",
        "null",
        "[]",
        '{"$type": "Agent"}',
        '{"$type": "Curriculum"}',
        '"\\ud800"',
    ],
    ids=lambda text: text[:20],
)
def test_text_that_is_no_curriculum_is_refused(text):
    with refused("file-damaged"):
        Curriculum.from_json(text)


def test_bytes_that_are_no_text_are_refused():
    with refused("file-damaged"):
        loads(b"\xff\xfe{\x00")


def test_data_nested_too_deep_is_refused_and_not_a_recursion_error():
    data = 1
    for _ in range(100_000):
        data = [data]
    with refused("file-damaged"):
        from_data(data)
    while isinstance(data, list):  # Taken apart by hand, because freeing it recurses too.
        data = data.pop()


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object(), b"a", 1j, np.zeros(3), {"$type": 1}, {1: 2}])
def test_what_is_not_plain_data_cannot_be_written(value):
    with refused("setting-type"):
        to_data({"a": [value]})


def test_only_when_asked_do_numbers_that_are_not_finite_become_null():
    assert to_data([math.nan, -math.inf, np.float32("nan"), 1.0], nan_as_null=True) == [None, None, None, 1.0]


@pytest.mark.parametrize("number", [np.float32(0.1), np.float64(0.1), np.int64(7), np.bool_(True), np.array(3)])
def test_numpy_numbers_become_pythons(number):
    environment = Environment("a", x=number)
    assert type(environment.kwargs["x"]) in (bool, int, float)
    assert through_json(environment) == environment
    assert to_data(number) == number.item()


def test_a_long_double_is_refused_rather_than_recursed_into():
    with refused("setting-type"):
        to_data(np.longdouble(1) / 3 if np.longdouble is not np.float64 else object())


def test_a_frozen_dict_is_hashable_equal_to_a_dict_and_cannot_be_changed():
    frozen = FrozenDict({"b": [1, {"c": 2}], "a": 1})
    assert frozen == {"a": 1, "b": (1, FrozenDict({"c": 2}))}
    assert hash(frozen) == hash(FrozenDict({"a": 1, "b": [1, {"c": 2}]}))
    with pytest.raises(TypeError):
        frozen["a"] = 2
    assert pickle.loads(pickle.dumps(frozen)) == copy.deepcopy(frozen) == frozen


def test_strict_json_is_one_line():
    assert dumps({"a": "x\ny", "b": [1, None]}) == '{"a": "x\\ny", "b": [1, null]}'
    with pytest.raises(ValueError):
        dumps(math.nan)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "b": 2, "a": 3}', ("file-damaged", "", "")),
        ("1e999", ("file-damaged", "", "")),
        ("-Infinity", ("file-damaged", "", "")),
        ("9" * 1_000, ("file-damaged", "", "")),
        ("[" * 65 + "]" * 65, ("file-damaged", "", "")),
        ("[" * 1_000_000, ("file-damaged", "", "")),
        ('{"a":' * 65 + "1" + "}" * 65, ("file-damaged", "", "")),
        ('"' + '\\"' * 1_000_000, ("file-damaged", "", "")),
        ("[" * 80 + '"' + '\\"' * 1_000_000, ("file-damaged", "", "")),
        (b"\xef\xbb\xbf{}", ("file-damaged", "", "")),
        ("{}".encode("utf-16"), ("file-damaged", "", "")),
    ],
    ids=range(11),
)
def test_json_that_is_not_strict_or_would_take_long_is_refused_at_once(text, said):
    # Of the processor, so that a busy machine takes no longer.
    started = time.process_time()
    with refused(*said):
        loads(text)
    assert time.process_time() - started < 2.0


def test_brackets_in_texts_are_no_nesting():
    deepest = "[" * 64 + "]" * 64
    assert dumps(loads(deepest)) == deepest
    texts = ["[[[[[" * 20, '{"' * 50, "\\", '"']
    assert loads(dumps([texts] * 40)) == [texts] * 40


@dataclass(frozen=True)
class Row:
    count: int
    value: float | None
    word: Literal["a", "b"]
    words: tuple[str, ...]
    scores: Mapping[str, float]
    inner: "Row | None" = None


GOOD = {"count": 1, "value": 2, "word": "a", "words": ("x",), "scores": {"y": 0.5, "nan": None}}


@pytest.mark.parametrize(
    "change",
    [
        {"count": "1"},
        {"count": True},
        {"count": None},
        {"value": "2"},
        {"word": "c"},
        {"words": "x"},
        {"words": (1,)},
        {"scores": {"y": "z"}},
        {"scores": []},
        {"inner": 3},
        {"inner": Row(**{**GOOD, "count": 0.5})},
    ],
    ids=str,
)
def test_fields_of_another_type_are_refused(change):
    require_types(Row(**GOOD, inner=Row(**GOOD)))
    with refused("file-damaged", where="Row"):
        require_types(Row(**{**GOOD, **change}))


WRITTEN = {
    "size": (5, 7),
    "lanes": [1, 2],
    3: "x",
    "deep": [{"at": (1, [2])}],
    (0, 1): None,
    "$type": "tuple",
    0.5: True,
}


def test_arguments_come_out_of_json_as_they_were_written():
    back = through_json(Environment("a", config=WRITTEN))
    again = thaw(back.kwargs)["config"]
    assert again == WRITTEN and list(again) == list(WRITTEN)
    assert [type(again[key]) for key in ("size", "lanes", "deep")] == [tuple, list, list]
    assert type(again["deep"][0]) is dict and type(again["deep"][0]["at"][1]) is list
    assert thaw(back.kwargs)["config"]["lanes"] is not again["lanes"]


def test_a_tuple_counts_as_a_list_in_the_digest_and_the_order_of_other_keys_does_not_count():
    assert digest(Environment("a", x=(1, (2,)))) == digest(Environment("a", x=[1, [2]]))
    assert digest(Environment("a", x={1: "a", 2: "b"})) == digest(Environment("a", x={2: "b", 1: "a"}))
    assert digest(Environment("a", x={1: "a"})) != digest(Environment("a", x={"1": "a"}))


def test_arguments_of_a_record_without_tuples_are_read_as_lists():
    back = from_data({"$type": "Environment", "id": "a", "kwargs": {"x": [1, {"y": [2]}]}, "wrappers": ["a:b"]})
    assert thaw(back.kwargs) == {"x": [1, {"y": [2]}]} and type(back.wrappers) is tuple


@pytest.mark.parametrize("items", [None, 5, "ab", {"a": 1}])
def test_damaged_tuples_are_refused(items):
    with refused("file-damaged"):
        from_data({"$type": "tuple", "items": items} if items != "ab" else {"$type": "dict", "items": [1]})
