import functools
import math
import os
import subprocess
import sys

import pytest

from rlstages import InputError
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


def sentence_of(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    return str(caught.value)


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
    assert "has no name to import it by; define it with def or class at top level" in sentence_of(
        reference, "Environment", value
    )


def test_a_function_whose_name_stands_for_another_is_refused():
    @functools.wraps(make)
    def other():
        return 3

    assert "is not what" in sentence_of(reference, "here", other)


@pytest.mark.parametrize("text", ["", "module", ":name", "module:", ".module:name", "module name"])
def test_a_reference_needs_a_module_and_a_name(text):
    assert "is not of the form 'module:name'" in sentence_of(reference, "here", text)
    assert "is not of the form 'module:name'" in sentence_of(resolve, text)


@pytest.mark.parametrize(
    "name, said",
    [
        ("no_such_module_x:f", "there is no module 'no_such_module_x'; install it, or correct the name"),
        ("math.nothing:f", "there is no module 'math.nothing'"),
        ("math:sqr", "'math' has no 'sqr'. Did you mean 'sqrt'?"),
        ("math:pi.foo", "'math' has no 'foo'"),
        ("math:sqrt.x.y", "'math' has no 'x'"),
        ("os..path:join", "there is no module"),
    ],
)
def test_what_does_not_exist_is_named(name, said):
    assert said in sentence_of(resolve, name)


def test_a_module_that_lacks_something_itself_says_what(write, monkeypatch, tmp_path):
    write("needs_more.py", "import no_such_module_y\n")
    write("breaks_down.py", "raise RuntimeError('of\\nitself')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "there is no module 'no_such_module_y'; 'needs_more' imports it" in sentence_of(resolve, "needs_more:f")
    assert sentence_of(resolve, "breaks_down:f") == (
        "'breaks_down:f': 'breaks_down' cannot be imported: RuntimeError: of itself."
    )


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
    assert "already a module named" in sentence_of(resolve, "my_tasks_c:make")


def test_a_loaded_file_is_not_displaced_by_another_of_the_same_name(write):
    mine = write("my_tasks_d.py", "def make():\n    return 'mine'\n")
    module = load_file(mine)
    theirs = write("my_tasks_d.py", "def make():\n    return 'theirs'\n", "other")
    add_sources({"my_tasks_d": theirs})
    assert sources()["my_tasks_d"] == mine
    assert resolve("my_tasks_d:make") is module.make
    assert "there is already a module named 'my_tasks_d'" in sentence_of(load_file, theirs)


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
    assert "there is already a module named" in sentence_of(load_file, write(name, ""))


def test_a_file_that_fails_leaves_nothing_behind(write):
    path = write("my_tasks_g.py", "raise KeyError('x')\n")
    with pytest.raises(KeyError):
        load_file(path)
    assert "my_tasks_g" not in sys.modules and "my_tasks_g" not in sources()
    path.write_text("x = 2\n")
    assert load_file(path).x == 2


def test_files_that_are_no_modules_are_refused(write, tmp_path):
    assert "must be a Python name" in sentence_of(load_file, write("my-tasks.py", ""))
    assert "There is no file" in sentence_of(load_file, tmp_path / "gone.py")
    assert "is not a Python file" in sentence_of(load_file, write("my_notes_h.txt", "x"))


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
