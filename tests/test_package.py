import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import rlstages

ROOT = Path(rlstages.__file__).parent
HEAVY = {"torch", "stable_baselines3", "imitation", "wandb", "tensorboard"}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}


def imported_names(tree):
    """Yield the dotted names of every import in a module, in functions too, but not for type checkers only."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        todo += ast.iter_child_nodes(node)


LIGHT = sorted(name for name in MODULES if name.partition(".")[0] in ("errors", "events", "specs"))


def modules_after(code):
    """Run Python code in a fresh process and return the top-level modules it has loaded."""
    code += "\nimport sys\nprint('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.rpartition("LOADED")[2].split())


def test_public_names_are_sorted_and_every_one_resolves():
    assert rlstages.__all__ == sorted(rlstages.__all__, key=lambda name: (name.islower(), name))
    assert len(set(rlstages.__all__)) == len(rlstages.__all__)
    for name in rlstages.__all__:
        assert getattr(rlstages, name).__name__ == name
    assert set(rlstages.__all__) <= set(dir(rlstages))


def test_type_checkers_see_the_same_public_names():
    tree = MODULES[""]
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(seen) == sorted(rlstages.__all__)
    assert seen == {name: getattr(rlstages, name).__module__ for name in seen}


def public_definitions(tree):
    """Yield the names of functions, classes and variables that a module defines for others."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found = [node.name]
        else:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            found = [name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)]
        yield from (name for name in found if not name.startswith("_"))


def test_a_public_name_stands_for_one_thing():
    found = Counter(name for tree in MODULES.values() for name in set(public_definitions(tree)))

    # Every curriculum's module has a function of that name; two modules are commands; a phase of fine-tuning trains.
    assert {name for name, count in found.items() if count > 1} <= {"curriculum", "main", "train"}


def test_every_package_is_part_of_what_is_installed():
    listed = set(re.findall(r'^    "(rlstages[\w.]*)",$', (ROOT.parent / "pyproject.toml").read_text(), re.MULTILINE))
    packages = {package.parent.relative_to(ROOT.parent) for package in ROOT.rglob("__init__.py")}
    assert {".".join(package.parts) for package in packages} == listed - {"rlstages_envs"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'rlstages' has no attribute 'tran'"):
        rlstages.tran  # noqa: B018


def test_importing_the_package_brings_in_nothing_heavy():
    assert not modules_after("import rlstages") & {*HEAVY, "numpy", "gymnasium", "pydantic"}


def test_specs_and_events_bring_in_no_torch():
    modules = ", ".join(
        f"rlstages.{name}" for name in [*LIGHT, "demonstrations.episodes", "storage.run_directory", "storage.trust"]
    )
    assert not modules_after(f"import {modules}") & HEAVY
    light = ", ".join(f"rlstages.{name}" for name in LIGHT)
    assert not modules_after(f"import {light}") & {*HEAVY, "gymnasium"}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_brings_in_nothing_heavy(arguments):
    code = f"import sys; sys.argv = {['rlstages', *arguments]!r}\nfrom rlstages.cli import main\n"
    assert not modules_after(code + "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code") & {
        *HEAVY,
        "numpy",
    }


def test_a_spec_can_be_made_without_torch():
    code = "from rlstages import Agent, Environment, load_curriculum"
    assert not modules_after(f"{code}\nload_curriculum('rooms')") & {"torch", "stable_baselines3", "imitation"}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy_even_in_functions(module):
    assert not {name.partition(".")[0] for name in imported_names(MODULES[module])} & {*HEAVY, "gymnasium"}


UNPICKLING = {"load", "set_parameters", "load_from_zip_file", "Unpickler", "read_pickle", "load_from_disk"}
# What else has that name: the loaders of checkpoints, and of what installed packages add.
HARMLESS = {("training.state", "run.session.load")}
HARMLESS |= {("specs.serialization", "entry.load"), ("specs.algorithms.base", "entry.load")}


def test_only_an_experts_model_is_unpickled():
    """What the linter cannot see: a method of a class that is chosen at run time, and arguments."""
    nodes = [(module, node) for module, tree in MODULES.items() for node in ast.walk(tree)]
    named = {(module, ast.unparse(n)) for module, n in nodes if isinstance(n, ast.Attribute) and n.attr in UNPICKLING}
    # The reader of VecNormalize's files looks up no name that a pickle gives (tests/play/test_vecnormalize.py).
    inert = {("play.vecnormalize", "pickle.Unpickler")}
    inert |= {("play.vecnormalize", "_Reader(BytesIO(content)).load")}
    assert named - HARMLESS == {("play.experts", "BaseAlgorithm.load"), *inert}
    given = [
        (n.arg, n.value) for _, n in nodes if isinstance(n, ast.keyword) and n.arg in ("allow_pickle", "weights_only")
    ]
    assert [(name, ast.unparse(value)) for name, value in given] == [("allow_pickle", "False")]


def test_a_script_beside_a_clone_imports_the_package_and_not_the_directory_that_has_its_name(tmp_path):
    (tmp_path / "rlstages" / "rlstages").mkdir(parents=True)
    script = tmp_path / "mine.py"
    script.write_text("from rlstages import Agent\nimport rlstages_envs\nprint(Agent.__name__)\n")

    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)

    assert done.stdout == "Agent\n", done.stderr


PRIVATE = {"_last_obs", "_last_episode_starts", "_setup_learn", "_setup_model", "_get_constructor_parameters"}


def test_private_names_of_stable_baselines3_stand_in_one_module():
    nodes = [(module, node) for module, tree in MODULES.items() for node in ast.walk(tree)]
    assert {module for module, n in nodes if isinstance(n, ast.Attribute) and n.attr in PRIVATE} == {"learners.sb3"}
