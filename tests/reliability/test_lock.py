"""One process owns a run directory; it is free as soon as that process is dead, whatever it left running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from building import lines, surroundings
from refusing import refused

from rlstages.storage.lock import lock, unlock
from rlstages.storage.run_directory import RunDirectory

RACING = Path(__file__).with_name("racing.py")


def test_a_hundred_starts_have_one_winner_and_its_death_frees_the_run_at_once(run):
    command = [sys.executable, str(RACING), str(run), "100"]
    ended = subprocess.run(
        command, env=surroundings(run.parent), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    print(f"100 starts, {len(found['winners'])} winner; free {1e3 * found['freed']:.1f} ms after its death")
    assert len(found["winners"]) == 1 and len(found["said"]) == 99
    winner = found["winners"][0]
    known = f"{run} belongs to the running process {winner}, since "
    begun = f"{run} belongs to another process, which has just begun; wait for it, or stop it."
    assert all(said.startswith(known) or said == begun for said in found["said"]), found["said"][:3]
    assert found["freed"] < 1.0


HOLD = """
import sys
from building import curriculum, tuning
from rlstages import Environment, SuccessThreshold, train
until = SuccessThreshold(0.99, window=50)
stage = tuning("never", Environment("toys:Never", vectorize="subprocess"), until=until, max_steps=10**8)
train(curriculum(stage, n_envs=2), out=sys.argv[1])
"""


@pytest.mark.slow
def test_workers_do_not_inherit_it(here):
    """Worker processes may outlive a trainer that is killed, by moments; the run is free at once."""
    trainer = subprocess.Popen([sys.executable, "-c", HOLD, "run"], env=surroundings(here), cwd=here)
    try:
        while not any(line["type"] == "RolloutFinished" for line in lines(here / "run")):
            assert trainer.poll() is None
            time.sleep(0.05)
        with refused("run-busy", where="run"):
            RunDirectory(here / "run")
    finally:
        trainer.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    trainer.wait()
    RunDirectory(here / "run").close()
    print(f"free {1e3 * (time.monotonic() - killed):.1f} ms after a trainer with workers was killed")
    assert time.monotonic() - killed < 1.0


def test_a_lock_that_was_given_up_says_nothing(tmp_path):
    handle = lock(tmp_path)
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    assert not os.get_inheritable(handle)
    unlock(handle)
    assert (tmp_path / "lock").read_text() == ""


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "lock").symlink_to("mine")
    with refused("file-unusable"):
        lock(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
