"""Runs that are killed at random instants end with the same bits, and tell the same, as runs that are left alone."""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from building import RESETS_ITSELF, cloning, curriculum, echo, mostly_slow, surroundings, tuning
from ladders import Case

from rlstages import resume, train
from rlstages.storage.checkpoints import checkpoint_names, delete, read_checkpoint

HERE = Path(__file__).parent
NO_MUJOCO = importlib.util.find_spec("mujoco") is None
QUICK = [
    Case("cartpole", "in-process", normalize=True),
    Case("pointmaze", "batched", "A2C", normalize=True, engine="numpy"),
]
ALL = [
    *QUICK,
    Case("vector", "batched", normalize=True),
    Case("vector", "batched", "A2C", engine="numpy"),
    Case("cartpole", "subprocess"),
    Case("returning", "in-process", normalize=True, engine="numpy"),
    Case("returning", "subprocess"),
    Case("cartpole", "in-process", "A2C"),
    Case("cartpole", "in-process", mode="deterministic"),
    Case("rooms", "batched"),
    Case("rooms", "batched", normalize=True),
    Case("rooms", "in-process", "A2C", normalize=True),
    Case("pointmaze", "batched", normalize=True),
    Case("pointmaze", "subprocess", normalize=True),
    Case("lander", "in-process", normalize=True),
    Case("hopper", "in-process"),
    Case("hopper", "in-process", normalize=True),
    Case("hopper", "subprocess", "A2C", normalize=True),
    Case("cartpole", "in-process", normalize=True, engine="numpy"),
    Case("cartpole", "subprocess", "A2C", engine="numpy"),
    Case("rooms", "batched", engine="numpy"),
    Case("lander", "in-process", normalize=True, engine="numpy"),
]
KILLS = 12
"""Per case; all cases together are killed more than 200 times."""


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    environment = surroundings(tmp_path_factory.mktemp("home"), WANDB_MODE="disabled")
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, HERE / "zygote.py"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.wait(10)
    process.stdout.close()
    process.stderr.close()


def session(zygote, lifetime, **task):
    """Run one session, killed after its lifetime; return whether it came to its end."""
    zygote.stdin.write(json.dumps(task) + "\n")
    zygote.stdin.flush()
    child = int(zygote.stdout.readline())
    if lifetime is not None:
        time.sleep(lifetime)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    status = int(zygote.stdout.readline())
    assert os.WIFSIGNALED(status) or status == 0, "the session failed; its traceback is on the standard error"
    return status == 0


def told(run):
    """What the event log says, but for times and how often the run was resumed."""
    rows = []
    for line in (run / "events.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["type"] != "RunStarted":
            rows.append({k: v for k, v in row.items() if k not in ("time", "seconds", "steps_per_second")})
    return rows


def left(run):
    """The state that the run ended with, all weights and generators in it."""
    newest = checkpoint_names(run / "checkpoints")[-1]
    state = read_checkpoint(run / "checkpoints" / newest)
    return {key: value for key, value in state.items() if key not in ("seconds", "saves", "events_bytes")}


def kill_until_done(zygote, case, run, draw, typical):
    """Train a case to its end through kills; return how many it took."""
    task = {"case": dataclasses.asdict(case), "run": str(run)}
    kills, done = 0, False
    while not done:
        if run.exists() and not (run / "run.json").exists():
            # Killed before it was a run.
            shutil.rmtree(run)
        command = "resume" if run.exists() else "train"
        pace = float(draw.choice([0.0, 0.05, 0.3]))
        lifetime = float(draw.uniform(0.0, typical)) if kills < 40 else None
        done = session(zygote, lifetime, command=command, checkpoint_seconds=pace, **task)
        kills += not done
    return kills


def survives(zygote, case, tmp_path, kills, seed):
    whole = tmp_path / "whole"
    started = time.monotonic()
    assert session(
        zygote, None, command="train", case=dataclasses.asdict(case), run=str(whole), checkpoint_seconds=10.0
    )
    typical = 0.7 * (time.monotonic() - started)
    draw = np.random.default_rng(seed)
    runs, killed = 0, 0
    while killed < kills:
        run = tmp_path / f"killed-{runs}"
        killed += kill_until_done(zygote, case, run, draw, typical)
        runs += 1
        assert told(run) == told(whole)
        np.testing.assert_equal(left(run), left(whole))
    print(f"{case}: {killed} kills over {runs} runs, all ended with the same bits and {len(told(whole))} rows")


@pytest.mark.parametrize("case", mostly_slow(QUICK, 1), ids=str)
def test_a_killed_run_ends_with_the_same_bits(case, zygote, tmp_path):
    survives(zygote, case, tmp_path, kills=3, seed=0)


def test_a_run_killed_between_its_last_event_and_its_last_checkpoint_comes_to_its_end_again(tmp_path):
    plan = curriculum(
        cloning(episodes=4, max_epochs=2),
        tuning("tune", echo(steps=6), max_steps=1_000, on_timeout="advance"),
        held_out=[echo(steps=12)],
    )
    whole = train(plan, out=tmp_path / "whole")
    shutil.copytree(whole.path, tmp_path / "killed")
    delete(tmp_path / "killed" / "checkpoints" / checkpoint_names(whole.path / "checkpoints")[-1])

    again = resume(tmp_path / "killed", curriculum=plan)

    assert (again.outcome, again.reason, again.stages) == (whole.outcome, whole.reason, whole.stages)
    assert told(again.path) == told(whole.path)
    np.testing.assert_equal(left(again.path), left(whole.path))
    log = (again.path / "events.jsonl").read_bytes()
    assert resume(again.path, curriculum=plan).outcome == whole.outcome
    assert (again.path / "events.jsonl").read_bytes() == log


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=str)
def test_every_kind_of_run_survives_many_kills(case, zygote, tmp_path):
    if case.task == "hopper" and NO_MUJOCO:
        pytest.skip("MuJoCo is not installed")
    if case.task == "vector" and not RESETS_ITSELF:
        pytest.skip("this gymnasium has no vector environments that reset themselves")
    survives(zygote, case, tmp_path, KILLS, seed=len(str(case)))
