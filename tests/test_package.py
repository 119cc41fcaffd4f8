import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rlstages

ROOT = Path(rlstages.__file__).parent
HEAVY = {"torch", "stable_baselines3", "imitation", "wandb", "tensorboard"}
LIGHT = ["errors", "plain", "neighbours", "serialization", "references", "episodes", "criteria", "specs", "stages"]
LIGHT += ["curriculum"]

# What may import what: a module only those of earlier lines, or of its own line.
ORDER = [
    ["errors", "codes"],
    ["plain", "neighbours"],
    ["serialization", "references", "episodes", "places", "wording", "unknown"],
    ["privacy", "baselines"],
    ["criteria"],
    ["specs"],
    ["stages"],
    ["curriculum"],
    ["variants"],
    ["arms"],
    ["spaces", "storage.untrusted", "storage.lock"],
    ["units"],
    ["storage.checkpoints", "storage.vecnormalize", "trajectories"],
    ["demonstrations"],
    ["events", "storage.eventlog"],
    ["storage", "storage.groups", "storage.record"],
    ["storage.rundir"],
    ["storage.trust"],
    [
        "environments",
        "environments.autoreset",
        "environments.sharing",
        "environments.snapshots",
        "environments.success",
    ],
    ["batches", "environments.seeding", "environments.success", "environments.watchdog", "randomness", "threads"],
    ["environments.scripts"],
    ["turns"],
    ["environments.lookup"],
    ["environments.guarding"],
    ["environments.ranges", "environments.worker"],
    ["environments.workers", "environments.batched", "environments.inprocess"],
    ["environments.monitor", "environments.units"],
    ["environments.making"],
    ["environments.joined", "environments.mixing", "environments.statistics"],
    ["environments.rewards"],
    ["recording", "evaluation", "environments.determinism", "doubts"],
    ["trial"],
    ["learners", "learners.normalizer", "learners.engines", "learners.fit", "learners.learner"],
    ["policies"],
    ["experts"],
    ["measuring"],
    ["learners.runner", "learners.examination", "learners.copies", "learners.cloning", "learners.handover"],
    ["learners.lookback"],
    ["learners.fine_tuning"],
    ["inheritance"],
    ["preflight", "resumption", "stopping", "retention"],
    ["tracking", "visits"],
    ["trainer"],
    ["training"],
    [""],
    ["curricula"],
    ["launch", "launch_ray"],
    ["compare", "sweep"],
    ["cli"],
    ["__main__"],
]
RANKS = {module: rank for rank, line in enumerate(ORDER) for module in line}
LOGGED = {"baselines", "variants", "events", "storage.record", "storage.rundir", "privacy", "storage.groups"}
READ_BY_TRACKING = {*LIGHT, "codes", *LOGGED, "places", "storage.untrusted", "tracking"} - {"references"}
MAY_TRACK = {"", "trainer", "training", "compare", "cli", "tracking"}


def package_of(module):
    """Return the entry of ORDER that a module belongs to: itself, or the package that counts as one."""
    return module if module in RANKS else module.partition(".")[0]


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


def own_imports(module):
    """Return the modules of rlstages that a module imports."""
    found = set()
    for name in imported_names(MODULES[module]):
        parts = name.split(".")
        if parts[0] != "rlstages":
            continue
        while ".".join(parts[1:]) not in MODULES:
            parts.pop()
        found.add(".".join(parts[1:]))
    # A module brings its own package in anyway, before it begins.
    return found - {module, module.rpartition(".")[0] or module}


GRAPH = {module: own_imports(module) for module in MODULES}


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
        f"rlstages.{name}" for name in [*LIGHT, "demonstrations", "spaces", "storage.rundir", "storage.trust"]
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


def test_every_module_has_its_place_in_the_order():
    strangers = sorted(module for module in MODULES if package_of(module) not in RANKS)
    assert not strangers, "give them a line in ORDER, and say so in docs/design.md"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module):
    rank = RANKS[package_of(module)]
    back = sorted(other for other in GRAPH[module] if RANKS[package_of(other)] > rank)
    assert not back, f"rlstages.{module} imports {back}, which come after it"


def test_there_is_no_cycle():
    order = list(TopologicalSorter(GRAPH).static_order())
    assert order.index("errors") < order.index("trainer")


def test_trackers_read_the_record_only_and_nothing_else_reads_trackers():
    for module, imports in GRAPH.items():
        packages = {package_of(other) for other in imports}
        if package_of(module) == "tracking":
            assert packages <= READ_BY_TRACKING, module
        elif package_of(module) not in MAY_TRACK:
            assert "tracking" not in packages, module


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_package_does_not_import_its_example_environments(module):
    assert not {name.partition(".")[0] for name in imported_names(MODULES[module])} & {
        "rlstages_envs",
        "envs",
        "benchmarks",
    }


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy_even_in_functions(module):
    assert not {name.partition(".")[0] for name in imported_names(MODULES[module])} & {*HEAVY, "gymnasium"}


UNPICKLING = {"load", "set_parameters", "load_from_zip_file", "Unpickler", "read_pickle", "load_from_disk"}
# What else has that name: the loaders of our own curricula and of events.
HARMLESS = {("training", "live.load")}


def test_only_an_experts_model_is_unpickled():
    """What the linter cannot see: a method of a class that is chosen at run time, and arguments."""
    nodes = [(module, node) for module, tree in MODULES.items() for node in ast.walk(tree)]
    named = {(module, ast.unparse(n)) for module, n in nodes if isinstance(n, ast.Attribute) and n.attr in UNPICKLING}
    # The reader of VecNormalize's files looks up no name that a pickle gives (tests/storage/test_vecnormalize.py).
    inert = {("storage.vecnormalize", "pickle.Unpickler")}
    inert |= {("storage.vecnormalize", "_Reader(BytesIO(content)).load")}
    assert named - HARMLESS == {("experts", "BaseAlgorithm.load"), *inert}
    given = [
        (n.arg, n.value) for _, n in nodes if isinstance(n, ast.keyword) and n.arg in ("allow_pickle", "weights_only")
    ]
    assert [(name, ast.unparse(value)) for name, value in given] == [("allow_pickle", "False")]
