"""Every setting is written once, in its field: page, schema, docstring and checks are made from there."""

import json
from pathlib import Path
from unittest.mock import ANY

import pytest
from refusing import refused

from rlstages import A2C, PPO, Agent, BehaviorCloning, FineTuning
from rlstages.specs.settings import check_setting, schema_of

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_command_prints(rlstages):
    done = rlstages("settings")
    assert done.code == 0 and done.out == PAGE.read_text(encoding="utf-8")


def test_the_schema_says_types_ranges_and_defaults(rlstages):
    schemas = json.loads(rlstages("settings", "--json").out)
    assert {"Agent", "PPO", "A2C", "BehaviorCloning", "FineTuning"} <= set(schemas)
    steps = schemas["PPO"]["properties"]["n_steps"]
    assert (steps["type"], steps["minimum"], steps["default"]) == ("integer", 2, 128)
    assert schemas["Agent"]["properties"]["engine"]["enum"] == ["auto", "torch", "numpy"]
    assert schemas["Agent"]["properties"]["network"]["items"] == {"type": "integer", "minimum": 1}
    assert schemas["FineTuning"]["required"] == ["name", "environment", "until", "max_steps"]
    assert schemas["FineTuning"]["properties"]["anchor_kl"]["type"] == ["number", "null"]


def beyond(said):
    """Yield values that a setting's schema forbids."""
    limits = {"minimum": -1, "maximum": 1, "exclusiveMinimum": 0}
    yield from (said[limit] + step for limit, step in limits.items() if limit in said)
    kind = said.get("type")
    yield from ["a word that is none"] * ("enum" in said) + ["yes"] * (kind == "boolean")
    yield from [float("nan"), True] * (kind == "number")


@pytest.mark.parametrize("cls", [Agent, PPO, A2C, BehaviorCloning, FineTuning])
def test_what_the_schema_forbids_is_refused_and_its_defaults_are_not(cls):
    schema = schema_of(cls)
    for name, said in schema["properties"].items():
        assert said["description"].endswith(".") and name in (cls.__doc__ or "")
        if "default" in said:
            default = tuple(said["default"]) if isinstance(said["default"], list) else said["default"]
            check_setting("here", cls, name, default)
        for wrong in beyond(said):
            with refused(ANY, where="here", name=name):
                check_setting("here", cls, name, wrong)
