"""What is left of W&B's processes when a run is killed or interrupted, and what W&B has once it is resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import following
import pytest
import wandb_file
import wandb_server
from building import COMMAND, descendants, is_alive, lines, payloads, surroundings

from rlstages.events import RunFinished
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import read_events
from rlstages.tracking.metrics import metrics

PLAN = """
from rlstages import *

def curriculum():
    echo, never = Environment("toys:Echo"), Environment("toys:Never")
    agent = Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=2, network=(16,), learning_rate=1e-3)
    return Curriculum("small", agent=agent, stages=[
        BehaviorCloning("clone", echo, expert=Expert("toys:tell", episodes=12), max_epochs=6, batch_size=16),
        FineTuning("tune", never, until=SuccessThreshold(0.9), max_steps=9_000_000, critic_fit_steps=640),
    ])
"""
ALWAYS_SAVED = "from rlstages.training import trainer; trainer.CHECKPOINT_SECONDS = 0.0"


SESSIONS = []


class Session:
    """A command in a process group of its own."""

    def __init__(self, *arguments, cwd, server=None):
        keys = {}
        if server is not None:
            keys = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": wandb_server.KEY}
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{ALWAYS_SAVED}\n{COMMAND}", *arguments],
            cwd=cwd,
            env=surroundings(cwd, **keys),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        SESSIONS.append(self)

    def until(self, ready, seconds=90):
        deadline = time.monotonic() + seconds
        while not ready():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self):
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out, err


def has_mirror(pid):
    names = [Path(f"/proc/{child}/cmdline").read_bytes() for child in descendants(pid) if is_alive(child)]
    return all(any(word in name for name in names) for word in (b"tracking.wandb.mirror", b"wandb-core"))


def steps(run):
    return max((line["global_step"] for line in lines(run)), default=0)


@pytest.fixture(autouse=True)
def nothing_goes_on():
    yield
    while SESSIONS:
        process = SESSIONS.pop().process
        process.kill()
        process.communicate()


@pytest.fixture
def server():
    with closing(wandb_server.Server()) as server:
        yield server


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "small.py").write_text(PLAN)
    return ["train", "small.py", "--out", "run"]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["answers", "silent", "offline"])
def test_nothing_outlives_a_killed_run_by_5_seconds(state, plan, tmp_path, server):
    server.silent = state == "silent"
    track = "offline" if state == "offline" else "online"
    session = Session(*plan, "--track", track, cwd=tmp_path, server=server)
    session.until(lambda: steps(tmp_path / "run") > 1_000 and has_mirror(session.process.pid))
    if state == "answers":
        session.until(lambda: any(run["sent"] for run in server.runs.values()))
    left = descendants(session.process.pid)

    session.process.kill()

    killed = time.monotonic()
    while any(map(is_alive, left)):
        assert time.monotonic() - killed < 5
        time.sleep(0.05)
    session.process.communicate()
    assert [p for p in (tmp_path / "run").rglob("*.log")] == []


@pytest.mark.slow
def test_ctrl_c_reaches_w_and_b_only_through_the_run(plan, tmp_path, server):
    session = Session(*plan, "--track", "online", cwd=tmp_path, server=server)
    session.until(lambda: any(run["sent"] for run in server.runs.values()))
    os.killpg(session.process.pid, signal.SIGINT)
    code, out, err = session.end()
    assert (code, err) == (130, "")
    assert [line for line in out.splitlines() if "warning" in line and "The clone is far" not in line] == []
    (run,) = server.runs.values()
    assert run["exit"] == 130
    assert run["summary"]["outcome"] == "interrupted"
    assert len(server.rows(run["name"])) == run["sent"]


def places(run):
    """Return the events of the log that W&B may show, by their place in W&B."""
    return dict(enumerate(event for event in read_events(run) if metrics(event)))


@pytest.mark.slow
def test_killed_and_resumed_twice_it_is_one_run_without_a_point_twice(plan, tmp_path, server):
    run = tmp_path / "run"
    arguments, sent = plan, 0
    for number in range(3):
        session = Session(*arguments, "--track", "online", cwd=tmp_path, server=server)
        known = sent
        session.until(lambda known=known: sum(run["sent"] for run in server.runs.values()) > known + 3)
        if number < 2:
            session.process.kill()
        else:
            os.killpg(session.process.pid, signal.SIGTERM)
        session.process.communicate()
        time.sleep(4)
        sent = sum(run["sent"] for run in server.runs.values())
        arguments = ["resume", "run"]
    assert list(server.runs) == [read_record(run).run_id]
    rows = server.rows(read_record(run).run_id)
    assert len(rows) == sent, "no point was sent twice"
    numbers = [row["_step"] for row in rows]
    assert numbers == sorted(set(numbers))
    assert payloads(run, RunFinished)[-1].outcome == "interrupted"
    logged = places(run)
    assert numbers[-1] == max(logged)
    exact = [row for row in rows if row["global_step"] == logged[row["_step"]].global_step]
    assert len(exact) == len(rows)


@pytest.mark.slow
def test_killed_and_resumed_offline_it_is_one_folder_with_each_point_once(plan, tmp_path):
    run = tmp_path / "run"
    session = Session(*plan, "--track", "offline", cwd=tmp_path)
    session.until(lambda: steps(run) > 2_000 and following.logs(run))
    session.process.kill()
    session.process.communicate()
    session = Session("resume", "run", "--track", "offline", cwd=tmp_path)
    before = steps(run)
    session.until(lambda: steps(run) > before + 1_000)
    os.killpg(session.process.pid, signal.SIGTERM)
    assert session.end()[0] == 130
    (file,) = following.logs(run)
    history = [r.history.item for r in wandb_file.records(file) if r.WhichOneof("record_type") == "history"]
    rows = list(map(wandb_file.items, history))
    numbers = [row["_step"] for row in rows]
    assert numbers == sorted(set(numbers))
    logged = places(run)
    assert (numbers[0], numbers[-1]) == (0, max(logged))
    for row in rows:
        assert row["global_step"] == logged[row["_step"]].global_step
    epochs = [row["clone/epoch"] for row in rows if "clone/epoch" in row]
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.slow
def test_track_makes_up_for_what_a_dead_server_missed(plan, tmp_path, server):
    run = tmp_path / "run"
    session = Session(*plan, "--track", "online", cwd=tmp_path, server=server)
    session.until(lambda: any(run["sent"] for run in server.runs.values()))
    server.silent = True
    os.killpg(session.process.pid, signal.SIGINT)
    code, out, err = session.end()
    assert (code, err) == (130, "")
    (warned,) = [line for line in out.splitlines() if "warning:" in line and "The clone is far" not in line]
    assert "makes up for it later" in warned
    server.silent = False
    told = []
    for _ in range(2):
        code, out, err = Session("track", "run", cwd=tmp_path, server=server).end()
        assert (code, err) == (0, "")
        told.append(out)
    assert told[0] == told[1]
    (known,) = server.runs.values()
    rows = server.rows(known["name"])
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    assert rows[-1]["_step"] == max(places(run))
    assert known["sent"] == len(rows)
    assert json.dumps(known["summary"]["outcome"]) == '"interrupted"'
