"""A real Ray cluster of two nodes on this machine, one of which is killed while it works."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from building import payloads, surroundings
from launching import script

from rlstages.events import RunFinished, RunStarted, StageFinished, StageStarted
from rlstages.experiments.ray_jobs import run_jobs_on_ray

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

CURRICULUM = """
from rlstages import *


def curriculum(steps: int = 40_000) -> Curriculum:
    echo, longer = Environment("toys:Echo", steps=4), Environment("toys:Echo", steps=8)
    never = SuccessThreshold(0.99, window=300, margin=0.005, max_episodes=3000)
    more = dict(until=never, max_steps=steps, critic_fit_steps=0, evaluation_episodes=0, on_timeout="advance")
    return Curriculum(
        "two",
        agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=4, network=(16,), learning_rate=1e-9),
        stages=[FineTuning("first", echo, **more), FineTuning("second", longer, **more)],
    )
"""


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Two nodes that take one run each, and a head that takes none."""
    monkeypatch.setenv("PYTHONPATH", surroundings(tmp_path)["PYTHONPATH"])
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made, nodes
    made.shutdown()


def node_of(process, nodes):
    """Return the node of whose processes this one is a descendant."""
    roots = {info.process.pid: node for node in nodes for kind in node.all_processes.values() for info in kind}
    while process > 1:
        if process in roots:
            return roots[process]
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def test_a_sweep_outlives_a_node_and_repeats_no_stage(cluster, tmp_path):
    made, nodes = cluster
    (tmp_path / "two.py").write_text(CURRICULUM)
    arguments = ["sweep", "two.py", "--seeds", "0:3", "-p", "steps=40000", "--track", "none", "--out", "sweep"]
    log = (tmp_path / "told").open("w")
    sweep = subprocess.Popen(
        [sys.executable, "-m", "rlstages", *arguments, "--on", f"ray={made.address}"],
        cwd=tmp_path,
        env={**surroundings(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=log,
        stderr=log,
    )
    deadline = time.monotonic() + 400

    def in_the_second_stage():
        runs = [path for path in tmp_path.glob("sweep/*-s?") if (path / "lock").is_file()]
        busy = [path for path in runs if len(payloads(path, StageStarted)) == 2 and not payloads(path, RunFinished)]
        return busy[0] if busy else None

    while (victim := in_the_second_stage()) is None:
        assert sweep.poll() is None and time.monotonic() < deadline, (tmp_path / "told").read_text()
        time.sleep(0.2)
    before = len(payloads(victim))
    process = int((victim / "lock").read_text())
    node = node_of(process, nodes)
    assert node is not None
    made.remove_node(node, allow_graceful=False)
    made.add_node(num_cpus=1)

    assert sweep.wait(400) == 0, (tmp_path / "told").read_text()
    log.close()
    with (tmp_path / "sweep" / "sweep.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["outcome"] for row in rows] == ["reached"] * 3
    assert not re.search(r"seed \d: failed", (tmp_path / "told").read_text())
    for row in rows:
        path = tmp_path / "sweep" / row["run"]
        assert Counter(e.kind for e in payloads(path, StageStarted)) == {"FineTuning": 2}
        assert len(payloads(path, StageFinished)) == 2
    assert [start.resumed for start in payloads(victim, RunStarted)] == [False, True]
    assert len(payloads(victim)) > before and not os.path.exists(f"/proc/{process}")


def test_a_run_elsewhere_has_the_settings_of_weights_and_biases_and_what_fails_says_why(cluster, tmp_path, monkeypatch):
    made, _ = cluster
    # After the nodes have begun, so they have these from the task alone.
    passed = {"WANDB_PROJECT": "rooms", "WANDB_ENTITY": "us", "WANDB_RUN_GROUP": "mine", "WANDB_TAGS": "a,b"}
    passed |= {"WANDB_IDENTITY_TOKEN_FILE": "token", "WANDB_CREDENTIALS_FILE": "credentials"}
    for name, value in {**passed, "WANDB_SERVICE": "of this process", "WANDB_CACHE_DIR": "here"}.items():
        monkeypatch.setenv(name, value)
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('WANDB_')}))"
    (tmp_path / "file").touch()

    ended = run_jobs_on_ray(
        [script(tmp_path, "good", code), script(tmp_path / "file", "bad", code)], None, lambda one: None, made.address
    )

    failures = {one.job.name: one.failure for one in ended}
    assert failures["good"] is None
    had = json.loads((tmp_path / "logs" / "good.txt").read_text())
    assert passed.items() <= had.items() and not {"WANDB_SERVICE", "WANDB_CACHE_DIR"} & had.keys()
    assert re.match(r"NotADirectoryError: .*file/logs", failures["bad"])
