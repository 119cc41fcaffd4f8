"""Every error that the package raises has a code, and docs/errors.md has every code."""

import ast
import pickle
import re
from pathlib import Path
from typing import get_args

import pytest

import rlstages
from rlstages.errors import Code, CodedError, Fault, InputError
from rlstages.learners.algorithms.on_policy.protocol import LossNotFinite

PACKAGE = Path(rlstages.__file__).parent
CODES = get_args(Code)
PAGE = (PACKAGE.parent / "docs" / "errors.md").read_text(encoding="utf-8")
PLACE = {"InputError": 1, "Fault": 1, "require": 2}
"""Where the code stands among the arguments."""


def calls(names):
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            called = getattr(node, "func", None)
            name = getattr(called, "id", getattr(called, "attr", None))
            if name in names:
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", name, node


def code_in(name, call):
    given = [one.value for one in call.keywords if one.arg == "code"] + call.args[PLACE[name] : PLACE[name] + 1]
    return given[0] if given else None


def test_every_error_of_the_package_is_given_a_code():
    found = [(place, code_in(name, call)) for place, name, call in calls(PLACE) if not place.startswith("errors.py")]

    assert len(found) > 250
    assert [place for place, code in found if code is None] == []
    assert {code.value for _, code in found if isinstance(code, ast.Constant)} <= set(CODES) - {"other"}
    assert [place for place, code in found if not isinstance(code, ast.Constant)] == []


def subclasses(cls):
    return [one for direct in cls.__subclasses__() for one in [direct, *subclasses(direct)]]


def test_every_own_class_of_errors_has_a_code_of_its_own():
    own = [
        cls
        for cls in subclasses(CodedError)
        if cls.__module__.startswith("rlstages.") and cls.__bases__[0] is not CodedError
    ]

    assert own
    assert [cls.__name__ for cls in own if cls.code == "other" and cls is not LossNotFinite] == []


def test_no_code_is_there_that_nothing_raises():
    text = "".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))

    assert [code for code in CODES if text.count(f'"{code}"') < 2 and code != "other"] == []


def test_the_page_has_every_code_once():
    assert re.findall(r"^\| `([a-z]+(?:-[a-z]+)*)` \| [A-Za-z]", PAGE, flags=re.MULTILINE)[5:] == list(CODES)


def test_the_example_of_the_page_works():
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)

    exec(block, {})  # noqa: S102


@pytest.mark.parametrize("kind", [InputError, Fault, *subclasses(InputError)])
def test_an_error_keeps_its_code_and_place_on_its_way_from_another_process(kind):
    error = pickle.loads(pickle.dumps(kind("It.", "setting-type", "Agent", "n_envs", lambda: 1, trace="a")))  # noqa: S301

    assert type(error) is kind and str(error) == "It."
    assert (error.code, error.where, error.name, error.value, error.trace) == (
        "setting-type", "Agent", "n_envs", None, "a",
    )  # fmt: skip


def test_what_others_raise_without_a_code_has_one_all_the_same():
    assert InputError("It is wrong.").code == "other" and Fault("It died.").code == "other"


def test_told_again_an_error_keeps_what_a_script_reads():
    again = InputError("It.", "setting-range", "Agent", "n_envs", 0, trace="a").retold("Arm 'b': It.")

    assert (str(again), again.code, again.where, again.name) == ("Arm 'b': It.", "setting-range", "Agent", "n_envs")
    assert (again.value, again.trace) == (0, "a")
    assert again.retold("It.", where="stage 'a'").where == "stage 'a': Agent"
    assert again.retold("It.", where="Agent").where == "Agent"
    assert InputError("It.").retold("It.", where="stage 'a'").where == "stage 'a'"
