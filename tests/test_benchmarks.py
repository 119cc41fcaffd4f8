"""The benchmarks run, and what their figures rest on holds."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from building import cloning, curriculum, echo, tuning

from rlstages import RewardThreshold, train
from rlstages.events import StageFinished
from rlstages.storage.run_directory import read_events

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Returns a benchmark as a module; those that it imports are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in (set(sys.modules) - before) & {path.stem for path in BENCHMARKS.glob("*.py")}:
        sys.modules.pop(name)


@pytest.fixture
def equal_learning(benchmark):
    return benchmark("equal_learning")


@pytest.mark.parametrize(
    ("settings", "opened"),
    [({}, True), ({"until": RewardThreshold(1e9), "on_timeout": "advance", "max_steps": 900}, False)],
)
def test_every_step_of_a_stage_is_counted_once(settings, opened, benchmark, tmp_path):
    gates_cost = benchmark("gates_cost")
    train(curriculum(cloning(episodes=4, max_epochs=1), tuning("echo", echo(), **settings)), out=tmp_path / "run")
    ended = [e.payload for e in read_events(tmp_path / "run") if isinstance(e.payload, StageFinished)]

    cost = gates_cost.cost_of(read_events(tmp_path / "run"))

    assert sum(cost.steps.values()) == ended[-1].stage_steps
    assert (cost.steps["opened"] > 0) == (cost.end is not None) == opened
    assert cost.steps["trained"] > 0
    assert gates_cost.table([cost]).count("\n") == 2


@pytest.mark.slow
def test_arms_that_take_turns_do_not_change_one_another(equal_learning):
    """The torch engine has stable-baselines3's curve, though others draw random numbers in between."""
    run = equal_learning.train(equal_learning.TASKS["CartPole"], seed=3, steps=3 * equal_learning.EVERY)

    values = {name: [look.value for look in arm.looks[1:]] for name, arm in run.items()}
    assert values[equal_learning.TORCH] == values[equal_learning.TUNED]
    assert values["numpy"] == values["numpy, batched"] != values[equal_learning.TUNED]
    assert len(set(values[equal_learning.TUNED])) == 3


@pytest.mark.slow
def test_a_peer_is_measured_or_named_as_missing():
    command = [sys.executable, str(BENCHMARKS / "peers.py"), "--quick", "--turns", "1", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)
    measured = {row["contender"] for row in rows}
    assert {"stable-baselines3", "torch", "numpy", "CleanRL-style"} <= measured
    for peer in ("SBX", "tianshou", "skrl", "PureJaxRL-style"):
        assert (peer in measured) != (f"{peer} is skipped" in ended.stderr), peer
    assert all(row["learned"] > 0 for row in rows)


@pytest.mark.slow
def test_every_benchmark_can_be_imported():
    """One that no longer fits the package would otherwise be noticed by who wants to measure, long after."""
    names = [path.stem for path in sorted(BENCHMARKS.glob("*.py")) if not path.stem.startswith("peer_")]
    assert len(names) > 15

    command = [sys.executable, "-c", "\n".join(f"import {name}" for name in names)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BENCHMARKS)

    assert ended.returncode == 0, ended.stderr
