"""A kind of stage that another package adds: it trains, is shown, tracked and compared, and survives kills."""

import json
import subprocess
import sys

import pytest
from building import COMMAND, payloads, surroundings
from extending import install, place_beside
from test_end_to_end import ALWAYS_SAVED, Session, is_epoch, is_rollout

from rlstages.events import EpochFinished, StageFinished, StageStarted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install("own_stage", tmp_path_factory)


@pytest.fixture
def there(installed, tmp_path, monkeypatch):
    return place_beside("own_stage", installed, tmp_path, monkeypatch)


def rlstages(place, *arguments, code=0, without=None):
    environment = surroundings(place)
    if without is not None:
        environment["PYTHONPATH"] = environment["PYTHONPATH"].replace(str(without), "")
    command = [sys.executable, "-c", f"{ALWAYS_SAVED}\n{COMMAND}", *map(str, arguments)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def digests(run):
    return [(payload.outcome, payload.digest, payload.stage_steps) for payload in payloads(run, StageFinished)]


def test_it_trains_and_is_shown_and_tracked(there):
    rlstages(there, "train", "curriculum.py", "--out", "run", "--track", "offline")

    assert [payload.kind for payload in payloads(there / "run", StageStarted)] == ["Undecided", "FineTuning"]
    losses = [payload.metrics["loss"] for payload in payloads(there / "run", EpochFinished)]
    assert len(losses) == 20 and losses[-1] <= losses[0]
    about = json.loads(rlstages(there, "show", "run", "--json").stdout)
    assert [stage["outcome"] for stage in about["stages"]] == ["completed", "reached"]
    assert list((there / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_policies(there):
    rlstages(there, "train", "curriculum.py", "--out", "whole", "--track", "none")
    arguments = ["train", "curriculum.py", "--out", "run"]
    for moment in (is_epoch(4), is_epoch(12), is_rollout("balance", "training", 2_000)):
        session = Session(*arguments, cwd=there, run="run")
        session.wait_for(moment)
        session.kill()
        arguments = ["resume", "run"]

    code, _, err = Session(*arguments, cwd=there, run="run").end()

    assert code == 0, err
    assert digests(there / "run") == digests(there / "whole")


def test_its_arms_are_compared(there):
    arguments = [
        "--seeds",
        "0:2",
        "--arms",
        "staged,scratch",
        "--steps",
        "6000",
        "--episodes",
        "8",
        "--out",
        "compared",
    ]
    rlstages(there, "compare", "curriculum.py", *arguments)

    found = json.loads((there / "compared" / "compare.json").read_text())
    assert [arm["name"] for arm in found["arms"]] == ["staged", "scratch"]
    for arm in ("staged", "scratch"):
        kinds = [payload.kind for payload in payloads(there / "compared" / f"{arm}-s0", StageStarted)]
        assert ("Undecided" in kinds) == (arm == "staged")


def test_a_run_of_a_kind_that_is_not_installed_is_refused_by_its_name(there, installed):
    rlstages(there, "train", "curriculum.py", "--out", "run", "--track", "none", "-p", "epochs=2")

    refused = rlstages(there, "resume", "run", code=2, without=installed)

    assert "unknown type 'Undecided'" in refused.stderr
