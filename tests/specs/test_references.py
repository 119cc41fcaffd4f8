import functools
import math
import os
import subprocess
import sys
from unittest.mock import ANY

import pytest
from refusing import refusal

from rlstages.specs.references import add_sources, load_file, reference, resolve, sources


class Maker:
    def make(self):
        return self

    @classmethod
    def build(cls):
        return cls()


def make():
    return 1


def outer():
    def inner():
        return 2

    return inner


@pytest.fixture
def write(tmp_path):
    """Write a module file, and forget the modules that were loaded from such files afterwards."""
    before = set(sys.modules)

    def writes(name, text, folder="."):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    yield writes
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("value", [make, Maker, Maker.build, math.sqrt, len])
def test_a_named_function_or_class_resolves_to_itself(value):
    assert resolve(reference("here", value)) == value


def test_methods_of_classes_resolve_by_their_qualified_name():
    assert reference("here", Maker.make) == f"{__name__}:Maker.make"
    assert resolve("math:pi") == math.pi


@pytest.mark.parametrize("value", [lambda env: env, outer(), Maker(), Maker().make, functools.partial(make), 5, None])
def test_what_has_no_importable_name_is_refused(value):
    assert refusal(reference, "Environment", value) == ("name-invalid", "Environment", "")


def test_a_function_whose_name_stands_for_another_is_refused():
    @functools.wraps(make)
    def other():
        return 3

    assert refusal(reference, "here", other) == ("name-invalid", "here", "")


@pytest.mark.parametrize("text", ["", "module", ":name", "module:", ".module:name", "module name"])
def test_a_reference_needs_a_module_and_a_name(text):
    assert refusal(reference, "here", text) == ("name-invalid", "here", "")
    assert refusal(resolve, text) == ("name-invalid", "a reference", "")


@pytest.mark.parametrize(
    "name, said",
    [
        ("no_such_module_x:f", ("import-failed", "no_such_module_x", "no_such_module_x")),
        ("math.nothing:f", ("import-failed", "math.nothing", "math.nothing")),
        ("math:sqr", ("name-unknown", "math", "sqr")),
        ("math:pi.foo", ("name-unknown", "math", "foo")),
        ("math:sqrt.x.y", ("name-unknown", "math", "x")),
        ("os..path:join", ("import-failed", "os..path", "os.")),
    ],
)
def test_what_does_not_exist_is_named(name, said):
    assert refusal(resolve, name) == said


def test_a_module_that_lacks_something_itself_says_what(write, monkeypatch, tmp_path):
    write("needs_more.py", "import no_such_module_y\n")
    write("breaks_down.py", "raise RuntimeError('of\\nitself')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(resolve, "needs_more:f") == ("import-failed", "needs_more", "no_such_module_y")
    assert refusal(resolve, "breaks_down:f") == ("import-failed", "breaks_down", "")


def test_a_file_becomes_a_module_once(write):
    path = write("my_tasks_a.py", "made = []\ndef make():\n    made.append(1)\n    return made\n")
    module = load_file(path)
    assert load_file(path) is module and sources()["my_tasks_a"] == path
    assert reference("here", module.make) == "my_tasks_a:make"
    assert resolve("my_tasks_a:make") is module.make


def test_a_known_file_is_loaded_when_first_needed_as_in_a_worker_process(write):
    path = write("my_tasks_b.py", "def make():\n    return 7\n")
    add_sources({"my_tasks_b": path})
    assert "my_tasks_b" not in sys.modules
    assert resolve("my_tasks_b:make")() == 7


def test_a_known_file_wins_over_one_of_the_same_name_on_the_path(write, monkeypatch):
    wanted = write("my_tasks_c.py", "def make():\n    return 'wanted'\n")
    monkeypatch.syspath_prepend(write("my_tasks_c.py", "def make():\n    return 'other'\n", "elsewhere").parent)
    add_sources({"my_tasks_c": wanted})
    assert refusal(resolve, "my_tasks_c:make") == ("name-taken", "my_tasks_c.py", "name")


def test_a_loaded_file_is_not_displaced_by_another_of_the_same_name(write):
    mine = write("my_tasks_d.py", "def make():\n    return 'mine'\n")
    module = load_file(mine)
    theirs = write("my_tasks_d.py", "def make():\n    return 'theirs'\n", "other")
    add_sources({"my_tasks_d": theirs})
    assert sources()["my_tasks_d"] == mine
    assert resolve("my_tasks_d:make") is module.make
    assert refusal(load_file, theirs) == ("name-taken", "my_tasks_d.py", "name")


def test_a_file_in_the_working_directory_does_not_hide_itself(write, monkeypatch, tmp_path):
    path = write("my_tasks_e.py", "x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert load_file(path).x == 1


def test_a_file_that_the_program_has_imported_is_that_module(write, monkeypatch, tmp_path):
    path = write("my_tasks_f.py", "x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_tasks_f

    assert load_file(path) is my_tasks_f


@pytest.mark.parametrize("name", ["random.py", "numpy.py", "wave.py"])
def test_a_file_that_hides_a_module_is_refused(write, name):
    assert refusal(load_file, write(name, "")) == ("name-taken", ANY, "name")


def test_a_file_that_fails_leaves_nothing_behind(write):
    path = write("my_tasks_g.py", "raise KeyError('x')\n")
    with pytest.raises(KeyError):
        load_file(path)
    assert "my_tasks_g" not in sys.modules and "my_tasks_g" not in sources()
    path.write_text("x = 2\n")
    assert load_file(path).x == 2


def test_files_that_are_no_modules_are_refused(write, tmp_path):
    assert refusal(load_file, write("my-tasks.py", "")) == ("name-invalid", "my-tasks.py", "name")
    assert refusal(load_file, tmp_path / "gone.py") == ("file-missing", "gone.py", "")
    assert refusal(load_file, write("my_notes_h.txt", "x")) == ("import-failed", "my_notes_h.txt", "")


def run_script(path):
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=os.environ, check=False)


SCRIPT = """
from rlstages.specs.references import reference, sources
def make(): pass
print(reference('x', make), *sources())
"""


def test_functions_of_the_running_script_are_named_after_its_file(write):
    assert run_script(write("my_script.py", SCRIPT)).stdout == "my_script:make my_script\n"


def test_a_script_whose_name_cannot_be_imported_is_refused_at_once(write):
    assert "the script's name must be a Python name" in run_script(write("my-script.py", SCRIPT)).stderr
    assert (
        "there is already a module named 'json'"
        in run_script(write("json.py", "import sys; sys.path.pop(0)\nimport json\n" + SCRIPT)).stderr
    )
