import sys
import textwrap

import pytest

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, InputError, SuccessThreshold
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


def sentence_of(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def size_given(curriculum):
    return curriculum.stages[0].environment.kwargs["size"]


# --- what a curriculum takes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"name": ""}, "Curriculum: the name is ''"),
        ({"agent": "PPO"}, "curriculum 'c': agent is 'PPO'; give an Agent(...)"),
        ({"stages": []}, "give a list of at least one stage"),
        ({"stages": TUNE}, "give a list of at least one stage"),
        (
            {"stages": [ENV]},
            "number 1 in stages is an Environment; each is a StageSpec such as BehaviorCloning(...) or",
        ),
        ({"stages": [TUNE, [TUNE]]}, "number 2 in stages is a list; each is a StageSpec"),
        ({"stages": [TUNE, TUNE]}, "curriculum 'c': two stages are named 'tune'; give each a name of its own"),
        ({"held_out": ENV}, "held_out is an Environment; give a list of environments, be it of one"),
        ({"held_out": [[ENV]]}, "held_out has a list in it; it takes Environment(...) only"),
        ({"held_out": ["CartPole-v1"]}, "held_out has 'CartPole-v1' in it; it takes Environment(...) only"),
        ({"agent": Agent(n_envs=1000)}, "stage 'tune': max_steps is 100,000, but ten rollouts"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    given = {"name": "c", "agent": Agent(n_envs=2), "stages": [TUNE], **changes}
    assert said in sentence_of(lambda: Curriculum(given.pop("name"), **given))


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
        ("int", "many", "size is 'many', which is not of the type int."),
        ("int", "1.5", "which is not of the type int."),
        ("float", "", "which is not of the type float."),
        ("bool", "perhaps", "which is not of the type bool."),
        ("Optional[int]", "x", "which is not of the type Optional[int]."),
        ("int | None", "x", "which is not of the type int | None."),
        ("Literal['a', 'b']", "c", "which is not of the type Literal['a', 'b']."),
        ("object.__class__", "c", "not of the type type"),
        ("'Nowhere'", "c", "size is of the type Nowhere, which cannot be given as text."),
        ("'list[Nowhere]'", "c", "which cannot be given as text."),
        ("type('Odd', (), {})", "c", "size is of the type Odd, which cannot be given as text."),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(write, annotation, text, said):
    head = "from typing import Literal, Optional\n" + IMPORTS
    path = write(f"{head}def curriculum(size: {annotation} = 3):{BODY}")
    assert said in sentence_of(load_curriculum, path, {"size": text})
    assert size_given(load_curriculum(path)) == 3


def test_a_parameter_that_is_not_there_is_refused_with_a_hint(write):
    path = write(IMPORTS + "def curriculum(size: int = 3, colour: str = 'red'):" + BODY)
    assert sentence_of(load_curriculum, path, {"sise": "4"}) == (
        f"{path}: there is no parameter 'sise'; it takes size, colour. Did you mean 'size'?"
    )
    nothing = write(IMPORTS + "def curriculum():\n    size = 1" + BODY, "without_parameters.py")
    assert "it takes none." in sentence_of(load_curriculum, nothing, {"size": "4"})


def test_a_parameter_without_a_value_is_asked_for(write):
    path = write(IMPORTS + "def curriculum(size: int, steps: int, seed=0, *args, **more):" + BODY)
    assert sentence_of(load_curriculum, path) == f"{path}: give a value for size, steps, for example -p size=..."
    assert sentence_of(load_curriculum, path, {"size": "1"}).endswith(
        "give a value for steps, for example -p steps=..."
    )
    assert size_given(load_curriculum(path, {"size": "1", "steps": "2"})) == 1
    assert list(parameters_of(load_factory(path))) == ["size", "steps", "seed"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("def curriculum(:\n    pass\n", "my_plan.py, line 1: invalid syntax."),
        ("x = 1\n\nif x:\npass\n", "my_plan.py, line 4: expected an indented block"),
        ("x = 1\n1 / 0\n", "my_plan.py, line 2: ZeroDivisionError: division by zero"),
        ("import no_such_module_z\n", "my_plan.py, line 1: ModuleNotFoundError: No module named 'no_such_module_z'"),
        (
            "def curriculum():\n    return helper()\ndef helper():\n    raise KeyError('a\\nb')\n",
            "my_plan.py, line 4: KeyErr",
        ),
        ("def curriculum():\n    raise ValueError('one\\n\\n  two')\n", "line 2: ValueError: one two"),
        ("import sys\nsys.exit('bye')\n", "my_plan.py, line 2: SystemExit: bye"),
        ("def curriculum():\n    exit()\n", "my_plan.py, line 2: SystemExit"),
        ("", "my_plan.py defines no function 'curriculum'; define one that returns a Curriculum."),
        ("curriculum = 5\n", "my_plan.py defines no function 'curriculum'"),
        ("def curriculum():\n    pass\n", "the function 'curriculum' returned NoneType, not a Curriculum."),
        ("def curriculum():\n    return 'rooms'\n", "the function 'curriculum' returned str, not a Curriculum."),
        (
            "from rlstages import Agent\ndef curriculum():\n\n    return Agent(n_envs=0)\n",
            "my_plan.py, line 4: Agent: n_envs is 0",
        ),
        ("from rlstages import Environment\nEnvironment(lambda: 1)\n", "define it with def or class at top level."),
    ],
)
def test_what_goes_wrong_in_a_file_is_one_sentence_with_its_line(write, text, said):
    assert said in sentence_of(load_curriculum, write(text))


def test_a_syntax_error_in_a_helper_names_the_helper(write, monkeypatch, tmp_path):
    write("def broken(:\n", "my_helper.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert sentence_of(load_curriculum, write("import my_helper\n")) == "my_helper.py, line 1: invalid syntax."


def test_the_line_is_of_the_file_and_not_of_another_with_its_name(write):
    text = "from rlstages import Environment\n\ndef curriculum():\n    return Environment('')\n"
    assert sentence_of(load_curriculum, write(text, "specs_of_mine.py")).startswith("specs_of_mine.py, line 4: ")
    # rlstages has a curriculum.py too, and frames of it lie nearer to the error.
    assert sentence_of(load_curriculum, write(text, "curriculum.py")).startswith("curriculum.py, line 4: ")


def test_bytes_that_are_no_python_are_refused(write, tmp_path):
    (tmp_path / "binary_plan.py").write_bytes(b"\xff\xfe\x00\x00")
    assert "binary_plan.py" in sentence_of(load_curriculum, str(tmp_path / "binary_plan.py"))


@pytest.mark.parametrize(
    "call, said",
    [
        (
            "FineTuning('a', Environment('b'), network=[3])",
            "FineTuning takes no 'network': all stages share one network",
        ),
        ("BehaviorCloning('a', Environment('b'), n_envs=3)", "BehaviorCloning takes no 'n_envs': all stages share one"),
        ("FineTuning('a', Environment('b'), max_step=3)", "FineTuning takes no 'max_step'. Did you mean 'max_steps'?"),
        ("Agent(n_env=3)", "Agent takes no 'n_env'. Did you mean 'n_envs'?"),
        ("Expert('a:b', episode=3)", "Expert takes no 'episode'."),
    ],
)
def test_an_argument_that_is_not_there_is_explained(write, call, said):
    sentence = sentence_of(load_curriculum, write(f"{IMPORTS}def curriculum():\n    return {call}\n"))
    assert sentence.startswith(f"my_plan.py, line 3: {said}")


@pytest.mark.parametrize("name", ["random.py", "rlstages.py", "pytest.py"])
def test_a_file_that_hides_a_module_is_refused(write, name):
    assert f"{name}: there is already a module named {name[:-3]!r}; rename the file." in sentence_of(
        load_curriculum, write("x = 1\n", name)
    )


def test_a_file_that_is_not_there_and_a_name_that_is_not_known(tmp_path):
    assert sentence_of(load_curriculum, str(tmp_path / "gone.py")).startswith("There is no curriculum file")
    assert sentence_of(load_curriculum, str(tmp_path)).startswith("There is no curriculum '")
    assert "known are" in sentence_of(load_curriculum, "room") and "mean 'rooms'?" in sentence_of(
        load_curriculum, "room"
    )
    (tmp_path / "folder.py").mkdir()
    assert sentence_of(load_curriculum, str(tmp_path / "folder.py")).startswith("There is no curriculum file")


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
    assert "Did you mean 'plan'?" in sentence_of(load_curriculum, "broken")
