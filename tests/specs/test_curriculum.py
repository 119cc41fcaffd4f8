import sys
import textwrap
from unittest.mock import ANY

import pytest
from refusing import refusal

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold
from rlstages.specs.loading import load_curriculum, load_factory, named_curricula, parameters_of
from rlstages.specs.references import resolve, sources

ENV, UNTIL = Environment("CartPole-v1"), SuccessThreshold(0.9)
TUNE = FineTuning("tune", ENV, until=UNTIL, max_steps=100_000)
IMPORTS = "from rlstages import *\n"
BODY = """
    return Curriculum("test", agent=Agent(n_envs=2), stages=[
        FineTuning("tune", Environment("CartPole-v1", size=size), until=SuccessThreshold(0.9), max_steps=100_000)])
"""


@pytest.fixture
def write(tmp_path):
    """Write a curriculum file, and forget the modules that were loaded from such files afterwards."""
    before = set(sys.modules)

    def writes(text, name="my_plan.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    yield writes
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def size_given(curriculum):
    return curriculum.stages[0].environment.kwargs["size"]


# --- what a curriculum takes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"name": ""}, ("name-invalid", "Curriculum", "name")),
        ({"agent": "PPO"}, ("setting-type", "curriculum 'c'", "agent")),
        ({"stages": []}, ("setting-missing", "curriculum 'c'", "stages")),
        ({"stages": TUNE}, ("setting-missing", "curriculum 'c'", "stages")),
        (
            {"stages": [ENV]},
            ("setting-type", "curriculum 'c'", "stages"),
        ),
        ({"stages": [TUNE, [TUNE]]}, ("setting-type", "curriculum 'c'", "stages")),
        ({"stages": [TUNE, TUNE]}, ("name-taken", "curriculum 'c'", "stages")),
        ({"held_out": ENV}, ("setting-type", "curriculum 'c'", "held_out")),
        ({"held_out": [[ENV]]}, ("setting-type", "curriculum 'c'", "held_out")),
        ({"held_out": ["CartPole-v1"]}, ("setting-type", "curriculum 'c'", "held_out")),
        ({"agent": Agent(n_envs=1000)}, ("setting-conflict", "stage 'tune'", "max_steps")),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    given = {"name": "c", "agent": Agent(n_envs=2), "stages": [TUNE], **changes}
    assert refusal(lambda: Curriculum(given.pop("name"), **given)) == said


def test_a_curriculum_reads_like_prose():
    clone = BehaviorCloning("clone", ENV, expert=Expert("tasks:plan"))
    curriculum = Curriculum("poles", agent=Agent(n_envs=2, network=[32]), stages=[clone, TUNE], held_out=[ENV])
    assert str(curriculum).splitlines() == [
        "poles: PPO with MlpPolicy (32), 2 copies",
        "  1. clone: clone 100 episodes of plan in CartPole-v1",
        "  2. tune: train in CartPole-v1 until success of at least 0.9, at most 100,000 steps",
        "  held out: CartPole-v1",
    ]
    assert "no hidden layers" in str(Curriculum("p", agent=Agent(n_envs=2, network=[]), stages=[TUNE]))
    assert hash(curriculum) == hash(Curriculum.from_json(curriculum.to_json()))


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_loaded_by_its_path(write):
    path = write(IMPORTS + "def curriculum(size=3):" + BODY)
    assert size_given(load_curriculum(path)) == 3
    assert size_given(load_curriculum(path, {"size": "4"})) == "4"


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
@pytest.mark.parametrize(
    "annotation, text, value",
    [
        ("int", "50000", 50_000),
        ("int", "-3", -3),
        ("float", "1e-3", 1e-3),
        ("float", "2", 2.0),
        ("bool", "true", True),
        ("bool", "False", False),
        ("bool", "0", False),
        ("str", "5", "5"),
        ("str", "", ""),
        ("Optional[int]", "5", 5),
        ("int | None", "5", 5),
        ("Literal['a', 'b']", "b", "b"),
    ],
)
def test_a_parameter_is_read_according_to_its_annotation(write, future, annotation, text, value):
    head = future + "from typing import Literal, Optional\n" + IMPORTS
    read = size_given(load_curriculum(write(f"{head}def curriculum(size: {annotation}):{BODY}"), {"size": text}))
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "annotation, text, said",
    [
        ("int", "many", ("setting-type", "my_plan.py: size", "")),
        ("int", "1.5", ("setting-type", "my_plan.py: size", "")),
        ("float", "", ("setting-type", "my_plan.py: size", "")),
        ("bool", "perhaps", ("setting-type", "my_plan.py: size", "")),
        ("Optional[int]", "x", ("setting-type", "my_plan.py: size", "")),
        ("int | None", "x", ("setting-type", "my_plan.py: size", "")),
        ("Literal['a', 'b']", "c", ("setting-type", "my_plan.py: size", "")),
        ("object.__class__", "c", ("setting-type", "my_plan.py: size", "")),
        ("'Nowhere'", "c", ("setting-type", "my_plan.py: size", "")),
        ("'list[Nowhere]'", "c", ("setting-type", "my_plan.py: size", "")),
        ("type('Odd', (), {})", "c", ("setting-type", "my_plan.py: size", "")),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(write, annotation, text, said):
    head = "from typing import Literal, Optional\n" + IMPORTS
    path = write(f"{head}def curriculum(size: {annotation} = 3):{BODY}")
    assert refusal(load_curriculum, path, {"size": text}) == said
    assert size_given(load_curriculum(path)) == 3


def test_a_parameter_that_is_not_there_is_refused_with_a_hint(write):
    path = write(IMPORTS + "def curriculum(size: int = 3, colour: str = 'red'):" + BODY)
    assert refusal(load_curriculum, path, {"sise": "4"}) == ("setting-unknown", "my_plan.py", "sise")
    nothing = write(IMPORTS + "def curriculum():\n    size = 1" + BODY, "without_parameters.py")
    assert refusal(load_curriculum, nothing, {"size": "4"}) == ("setting-unknown", "without_parameters.py", "size")


def test_a_parameter_without_a_value_is_asked_for(write):
    path = write(IMPORTS + "def curriculum(size: int, steps: int, seed=0, *args, **more):" + BODY)
    assert refusal(load_curriculum, path) == ("setting-missing", "my_plan.py", "size")
    assert refusal(load_curriculum, path, {"size": "1"}) == ("setting-missing", "my_plan.py", "steps")
    assert size_given(load_curriculum(path, {"size": "1", "steps": "2"})) == 1
    assert list(parameters_of(load_factory(path))) == ["size", "steps", "seed"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("def curriculum(:\n    pass\n", ("import-failed", "my_plan.py, line 1", "")),
        ("x = 1\n\nif x:\npass\n", ("import-failed", "my_plan.py, line 4", "")),
        ("x = 1\n1 / 0\n", ("import-failed", "my_plan.py, line 2", "")),
        ("import no_such_module_z\n", ("import-failed", "my_plan.py, line 1", "")),
        (
            "def curriculum():\n    return helper()\ndef helper():\n    raise KeyError('a\\nb')\n",
            ("import-failed", "my_plan.py, line 4", ""),
        ),
        ("def curriculum():\n    raise ValueError('one\\n\\n  two')\n", ("import-failed", "my_plan.py, line 2", "")),
        ("import sys\nsys.exit('bye')\n", ("import-failed", "my_plan.py, line 2", "")),
        ("def curriculum():\n    exit()\n", ("import-failed", "my_plan.py, line 2", "")),
        ("", ("import-failed", "my_plan.py", "curriculum")),
        ("curriculum = 5\n", ("import-failed", "my_plan.py", "curriculum")),
        ("def curriculum():\n    pass\n", ("import-failed", "my_plan.py", "curriculum")),
        ("def curriculum():\n    return 'rooms'\n", ("import-failed", "my_plan.py", "curriculum")),
        (
            "from rlstages import Agent\ndef curriculum():\n\n    return Agent(n_envs=0)\n",
            ("setting-range", "my_plan.py, line 4: Agent", "n_envs"),
        ),
        (
            "from rlstages import Environment\nEnvironment(lambda: 1)\n",
            ("name-invalid", "my_plan.py, line 2: Environment", ""),
        ),
    ],
)
def test_what_goes_wrong_in_a_file_is_one_sentence_with_its_line(write, text, said):
    assert refusal(load_curriculum, write(text)) == said


def test_a_syntax_error_in_a_helper_names_the_helper(write, monkeypatch, tmp_path):
    write("def broken(:\n", "my_helper.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(load_curriculum, write("import my_helper\n")) == ("import-failed", "my_helper.py, line 1", "")


def test_the_line_is_of_the_file_and_not_of_another_with_its_name(write):
    text = "from rlstages import Environment\n\ndef curriculum():\n    return Environment('')\n"
    # rlstages has a curriculum.py too, and frames of it lie nearer to the error.
    for name in ("specs_of_mine.py", "curriculum.py"):
        assert refusal(load_curriculum, write(text, name)) == ("setting-missing", f"{name}, line 4: Environment", "id")


def test_bytes_that_are_no_python_are_refused(write, tmp_path):
    (tmp_path / "binary_plan.py").write_bytes(b"\xff\xfe\x00\x00")
    assert refusal(load_curriculum, str(tmp_path / "binary_plan.py")) == ("import-failed", "binary_plan.py", "")


@pytest.mark.parametrize(
    "call, said",
    [
        ("FineTuning('a', Environment('b'), network=[3])", ("FineTuning", "network")),
        ("BehaviorCloning('a', Environment('b'), n_envs=3)", ("BehaviorCloning", "n_envs")),
        ("FineTuning('a', Environment('b'), max_step=3)", ("FineTuning", "max_step")),
        ("Agent(n_env=3)", ("Agent", "n_env")),
        ("Expert('a:b', episode=3)", ("Expert", "episode")),
    ],
)
def test_an_argument_that_is_not_there_is_explained(write, call, said):
    file = write(f"{IMPORTS}def curriculum():\n    return {call}\n")
    assert refusal(load_curriculum, file) == ("setting-unknown", f"my_plan.py, line 3: {said[0]}", said[1])


@pytest.mark.parametrize("name", ["random.py", "rlstages.py", "pytest.py"])
def test_a_file_that_hides_a_module_is_refused(write, name):
    assert refusal(load_curriculum, write("x = 1\n", name)) == ("name-taken", ANY, "name")


def test_a_file_that_is_not_there_and_a_name_that_is_not_known(tmp_path):
    assert refusal(load_curriculum, str(tmp_path / "gone.py")) == ("file-missing", "gone.py", "")
    assert refusal(load_curriculum, str(tmp_path)) == ("name-unknown", "", "curriculum")
    assert refusal(load_curriculum, "room") == ("name-unknown", "", "curriculum")
    (tmp_path / "folder.py").mkdir()
    assert refusal(load_curriculum, str(tmp_path / "folder.py")) == ("file-missing", "folder.py", "")


def test_functions_and_classes_of_the_file_go_by_its_name(write):
    path = write(
        IMPORTS
        + """
class Task: pass
def make_env(size=3): return Task()
def wrap(env): return env
def solved(info, total, length): return True
def plan(env): return lambda observation: 0
def curriculum():
    made = Environment(make_env, wrappers=[wrap, Task], success=solved, size=4)
    return Curriculum("own", agent=Agent(n_envs=2), stages=[
        BehaviorCloning("clone", made, expert=Expert(plan)),
        FineTuning("tune", Environment(Task), until=SuccessThreshold(0.9), max_steps=100_000),
    ])
""",
        "own_parts.py",
    )
    clone, tune = load_curriculum(path).stages
    assert clone.environment.id == "own_parts:make_env" and tune.environment.id == "own_parts:Task"
    assert clone.environment.wrappers == ("own_parts:wrap", "own_parts:Task")
    assert (clone.environment.success, clone.expert.source) == ("own_parts:solved", "own_parts:plan")
    assert str(sources()["own_parts"]) == path
    assert type(resolve(clone.environment.id)(size=4)) is resolve(tune.environment.id)


# --- names --------------------------------------------------------------------------------------------------------


def test_the_packages_own_curricula_have_names():
    assert "rooms" in named_curricula()
    curriculum = load_curriculum("rooms", {"max_steps": "400000"})
    assert curriculum.name == "rooms" and curriculum.stages[-1].max_steps == 400_000
    assert Curriculum.from_json(curriculum.to_json()) == curriculum


def test_a_package_can_offer_curricula_of_its_own(write, monkeypatch, tmp_path):
    write(IMPORTS + "def plan(size: int = 3):" + BODY, "offering_package.py")
    offered = tmp_path / "offering_package-1.0.dist-info"
    offered.mkdir()
    (offered / "METADATA").write_text("Metadata-Version: 2.1\nName: offering-package\nVersion: 1.0\n")
    (offered / "entry_points.txt").write_text(
        "[rlstages.curricula]\noffered = offering_package:plan\nbroken = offering_package:plen\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert size_given(load_curriculum("offered", {"size": "7"})) == 7
    assert list(named_curricula()) == sorted(named_curricula())
    assert refusal(load_curriculum, "broken") == ("name-unknown", "offering_package", "plen")
