"""Whatever happens to W&B, a run ends with the same weights, one clear warning, and little waiting."""

import os
import socket
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import following
import pytest
import realistic
import wandb_server
from building import cloning, curriculum, payloads, tuning

from rlstages import train
from rlstages.events import EpochFinished, RolloutFinished, StageFinished
from rlstages.tracking.wandb.tracker import FINISH_SECONDS, wandb_tracker

MOST_SECONDS = 30.0


def plan():
    return curriculum(cloning(max_epochs=4), tuning(max_steps=6_000))


def digests(result):
    return {name: stage.digest for name, stage in result.stages.items()}


class At:
    """A tracker that does something at the first event of a kind."""

    def __init__(self, kind, act):
        self.kind, self.act, self.seconds = kind, act, 0.0

    def __call__(self, event):
        if isinstance(event.payload, self.kind) and self.act:
            act, self.act = self.act, None
            began = time.monotonic()
            act()
            self.seconds = time.monotonic() - began

    def close(self):
        pass


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    """What the run ends with when nothing follows it, and how long it takes."""
    began = time.monotonic()
    result = train(plan(), out=tmp_path_factory.mktemp("untracked") / "run", track="none")
    return digests(result), time.monotonic() - began


@pytest.fixture
def server(monkeypatch):
    with closing(wandb_server.Server()) as server:
        point_at(monkeypatch, server.url)
        yield server


def point_at(monkeypatch, url):
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
    monkeypatch.setenv("WANDB_BASE_URL", url)


def refusing():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


class Listener:
    """Accepts connections, and never answers or hangs up at once."""

    def __init__(self, hangs_up):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.hangs_up, self.kept = hangs_up, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                found, _ = self.socket.accept()
            except OSError:
                return
            if self.hangs_up:
                found.recv(10)
                found.close()
            else:
                self.kept.append(found)

    def close(self):
        self.socket.close()
        for found in self.kept:
            found.close()


def processes_below(pid):
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *processes_below(child)]
    return found


def named(pids, word):
    return [pid for pid in pids if word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")]


def wait_for_points(server):
    """W&B sends the first points after a quarter of a minute, and there may be none yet."""
    deadline = time.monotonic() + 20
    while not any(run["sent"] for run in server.runs.values()) and time.monotonic() < deadline:
        time.sleep(0.05)


def run_and_compare(untracked, tmp_path, capfd, monkeypatch, said, act=None, kind=EpochFinished):
    """Train online under a fault; check weights, waiting and what is printed."""
    monkeypatch.chdir(tmp_path)
    expected, seconds = untracked
    run, began, disturber = tmp_path / "run", time.monotonic(), At(kind, act)
    result = train(plan(), out=run, track="online", console=True, trackers=[disturber])
    added = time.monotonic() - began - seconds - disturber.seconds
    out, err = capfd.readouterr()
    assert digests(result) == expected
    assert added < MOST_SECONDS
    assert err == ""
    warnings = [line for line in out.splitlines() if "warning" in line]
    assert len(warnings) == 1, out
    assert said in warnings[0]
    assert "'rlstages track run' makes up for it later" in warnings[0]
    assert "Traceback" not in out and str(tmp_path) not in warnings[0]
    assert [p.outcome for p in payloads(run, StageFinished)] == ["completed", "reached"]
    print(f"{said}: {added:.1f} s added")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["none", "malformed"])
def test_no_key(key, untracked, tmp_path, capfd, monkeypatch):
    if key == "malformed":
        monkeypatch.setenv("WANDB_API_KEY", "secret-of-mine")
    run_and_compare(untracked, tmp_path, capfd, monkeypatch, "W&B does not take this run")


@pytest.mark.slow
def test_server_that_refuses(untracked, tmp_path, capfd, monkeypatch):
    point_at(monkeypatch, refusing())
    run_and_compare(untracked, tmp_path, capfd, monkeypatch, "connection refused")


@pytest.mark.slow
@pytest.mark.parametrize("hangs_up", [False, True], ids=["silent", "hangs up"])
def test_server_that_accepts_and_no_more(hangs_up, untracked, tmp_path, capfd, monkeypatch):
    with closing(Listener(hangs_up)) as listener:
        point_at(monkeypatch, listener.url)
        run_and_compare(untracked, tmp_path, capfd, monkeypatch, "W&B does not take this run")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["dies", "falls silent"])
@pytest.mark.parametrize("kind", [EpochFinished, RolloutFinished, StageFinished])
def test_server_that_fails_in_the_middle(end, kind, untracked, tmp_path, capfd, monkeypatch, server):
    def act():
        wait_for_points(server)
        if end == "dies":
            server.close()
        server.silent = True

    run_and_compare(untracked, tmp_path, capfd, monkeypatch, "W&B did not take all of this run", act, kind)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["mirror", "wandb-core"])
def test_a_process_of_the_mirror_is_killed(victim, untracked, tmp_path, capfd, monkeypatch, server):
    def act():
        wait_for_points(server)
        below = processes_below(os.getpid())
        (pid,) = named(below, "rlstages.tracking.wandb.mirror" if victim == "mirror" else "wandb-core")
        os.kill(pid, 9)

    said = "W&B's mirror ended before its time" if victim == "mirror" else "W&B does not take this run"
    run_and_compare(untracked, tmp_path, capfd, monkeypatch, said, act, StageFinished)


@pytest.fixture
def full_disk(tmp_path):
    """A run directory whose W&B folder lies on a disk with little room."""
    directory = tmp_path / "run"
    (directory / "wandb").mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", "size=32k", "tmpfs", directory / "wandb"]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield directory
    subprocess.run(["umount", "--lazy", directory / "wandb"], check=True)


@pytest.mark.parametrize("fails", ["log", pytest.param("table", marks=pytest.mark.slow)])
def test_full_disk_is_one_warning(fails, full_disk):
    realistic.files(full_disk)
    _, events = realistic.story()
    if fails == "log":
        # W&B's service writes this alone, and says nothing when it cannot.
        rollout = next(event for event in events if isinstance(event.payload, RolloutFinished))
        late = [realistic.later(rollout, seconds) for seconds in range(1, 400)]
        events = [events[0], *late]
    said = following.follow(full_disk, events)
    assert len(said) == 1
    assert "W&B cannot write this run (OSError:" in said[0]
    assert ("No space left" if fails == "table" else "is the disk full?") in said[0]


def test_tracker_never_waits_and_closes_in_time(tmp_path, monkeypatch, capfd):
    """A silent server costs nothing while events come, and closing costs what was agreed."""
    realistic.files(tmp_path)
    _, events = realistic.story()
    with closing(Listener(hangs_up=False)) as listener:
        point_at(monkeypatch, listener.url)
        following.write(tmp_path, events)
        said = []
        tracker = wandb_tracker(tmp_path, "online", warn=said.append, init_seconds=60, finish_seconds=3)
        began = time.monotonic()
        for event in events:
            tracker(event)
        assert time.monotonic() - began < 10, "nothing waits for the minute that a start may take"
        tracker.close()
        assert time.monotonic() - began < 3 + 10
    assert len(said) == 1
    assert "did not take all of this run within 3 seconds" in said[0]
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.glob("wandb/*run*"))


@pytest.mark.parametrize("mode", [pytest.param("online", marks=pytest.mark.slow), "offline"])
def test_folder_that_cannot_be_made(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path / "wandb").write_text("in the way")
    said = following.follow(tmp_path, realistic.story()[1][:2], mode)
    assert len(said) == 1
    assert "FileExistsError" in said[0] and str(tmp_path) not in said[0]


def test_folder_that_is_a_link_is_not_written_to(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "offline-run-20200101_000000-mine").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").symlink_to(elsewhere)
    said = following.follow(tmp_path / "run", realistic.story()[1][:2])
    assert len(said) == 1 and "is a link" in said[0]
    assert [p.name for p in elsewhere.iterdir()] == ["offline-run-20200101_000000-mine"]


def test_closing_may_take_no_longer_than_promised():
    assert FINISH_SECONDS < MOST_SECONDS
