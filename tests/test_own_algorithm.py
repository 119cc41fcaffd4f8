"""An algorithm that another package adds: it is cloned into, trains, is shown, tracked and compared, survives kills."""

import json
import subprocess
import sys

import numpy as np
import pytest
from building import payloads, surroundings
from extending import install, place_beside
from test_end_to_end import Session, is_epoch, is_rollout
from test_own_stage import digests, rlstages

from rlstages.events import RolloutFinished, RunStarted, StageFinished

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install("own_algorithm", tmp_path_factory)


@pytest.fixture
def there(installed, tmp_path, monkeypatch):
    return place_beside("own_algorithm", installed, tmp_path, monkeypatch)


def test_it_trains_and_is_shown_and_tracked(there):
    rlstages(there, "train", "curriculum.py", "--out", "run", "--track", "offline")

    [started] = payloads(there / "run", RunStarted)
    assert started.curriculum.agent.algorithm.name == "REINFORCE"
    assert [payload.outcome for payload in payloads(there / "run", StageFinished)] == ["completed", "reached"]
    noted = [payload.train for payload in payloads(there / "run", RolloutFinished) if payload.train]
    assert np.isfinite([list(metrics.values()) for metrics in noted]).all()
    assert noted[-1].keys() >= {"policy_loss", "value_loss", "entropy"}
    about = json.loads(rlstages(there, "show", "run", "--json").stdout)
    assert [stage["outcome"] for stage in about["stages"]] == ["completed", "reached"]
    assert list((there / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_policies(there):
    rlstages(there, "train", "curriculum.py", "--out", "whole", "--track", "none")
    arguments = ["train", "curriculum.py", "--out", "run"]
    for moment in (is_epoch(1), is_rollout("balance", "training", 1_500), is_rollout("balance", "training", 6_000)):
        session = Session(*arguments, cwd=there, run="run")
        session.wait_for(moment)
        session.kill()
        arguments = ["resume", "run"]

    code, _, err = Session(*arguments, cwd=there, run="run").end()

    assert code == 0, err
    assert digests(there / "run") == digests(there / "whole")


def test_its_arms_are_compared(there):
    asked = ["--seeds", "0:2", "--arms", "staged,scratch", "--steps", "6000", "--episodes", "8", "--out", "compared"]
    rlstages(there, "compare", "curriculum.py", *asked)

    found = json.loads((there / "compared" / "compare.json").read_text())
    assert [arm["name"] for arm in found["arms"]] == ["staged", "scratch"]


def test_settings_of_another_algorithm_and_bad_ones_are_refused(there):
    text = (there / "curriculum.py").read_text()
    for wrong, said in ((0.25, "0.25"), ("clip_range", "clip_range"), (-1, "-1")):
        changed = '"baseline_coef": 0.25'
        given = '"clip_range": 0.2' if wrong == "clip_range" else f'"baseline_coef": {wrong}'
        (there / "wrong.py").write_text(text.replace(changed, given))
        code = 0 if wrong == 0.25 else 2
        assert said in rlstages(there, "show", "wrong.py", code=code).stderr or code == 0


def test_without_the_package_a_run_is_refused_by_the_name_of_the_algorithm(there, installed):
    rlstages(there, "train", "curriculum.py", "--out", "run", "--track", "none", "-p", "steps=3000", code=3)
    refused = rlstages(there, "resume", "run", code=2, without=installed)
    assert "unknown type 'REINFORCE'" in refused.stderr


def test_the_environment_of_a_test_has_the_package(there):
    command = [
        sys.executable,
        "-c",
        "from rlstages import Agent; print(Agent('REINFORCE', baseline_coef=0.1).algorithm)",
    ]
    done = subprocess.run(command, env=surroundings(there), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "REINFORCE"
