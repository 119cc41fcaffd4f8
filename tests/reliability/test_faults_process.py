"""What happens to the program from outside: signals, a killed trainer, a call that cannot be interrupted, a second run.

`pytest tests/reliability/test_faults_process.py` is the program's part of the table in docs/faults.md.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import faulty
import pytest
from building import COMMAND, descendants, is_alive, lines, surroundings
from test_end_to_end import ALWAYS_SAVED

import rlstages
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.environments.shared_memory import NAME

FORMS = ["in-process", "subprocess"]
HERE = Path(__file__).parent
FILE = """
from rlstages import *

def curriculum(fault: str = "none", form: str = "in-process", timeout: float = 300.0, copies: int = 3):
    where = Environment("faulty:Faulty", fault=fault, seed=SEED, step=4, while_there="cause", vectorize=form,
                        step_timeout=timeout)
    return Curriculum(
        "faulty",
        agent=Agent("PPO", n_envs=copies, n_steps=8, batch_size=12, n_epochs=2, network=(16,)),
        stages=[FineTuning("tune", where, until=SuccessThreshold(0.9, window=100_000), max_steps=1_000_000,
                           critic_fit_steps=0, evaluation_episodes=0)],
    )
""".replace("SEED", str(episode_seed(0, 0, Purpose.TRAINING, 2, 3)))


class Program:
    """`rlstages` in a process group of its own."""

    def __init__(self, *arguments, cwd, before=ALWAYS_SAVED):
        (cwd / "plan.py").write_text(FILE)
        path = os.pathsep.join([str(HERE), surroundings(cwd)["PYTHONPATH"]])
        self.log = cwd / "run"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\n{COMMAND}", *map(str, arguments), "--track", "none"],
            cwd=cwd,
            env=surroundings(cwd, PYTHONPATH=path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def has_rollouts(self, count):
        return sum(line["type"] == "RolloutFinished" for line in lines(self.log)) >= count

    def wait_for(self, wanted, seconds=60):
        deadline = time.monotonic() + seconds
        while not wanted():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self, seconds=60):
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode, out, err


def train(fault, form, cwd, *more, **settings):
    faulty.marker(cwd)
    parameters = ["-p", f"fault={fault}", "-p", f"form={form}", *more]
    return Program("train", "plan.py", "--out", "run", *parameters, cwd=cwd, **settings)


def resume_and_interrupt(cwd):
    """Go on without the fault until there are more rollouts, and stop."""
    (cwd / "cause").unlink()
    again = Program("resume", "run", cwd=cwd)
    before = sum(line["type"] == "RolloutFinished" for line in lines(cwd / "run"))
    again.wait_for(lambda: again.has_rollouts(before + 3))
    os.kill(again.process.pid, signal.SIGINT)
    code, _, err = again.end()
    assert (code, err) == (130, "")
    taken = [line["stage_steps"] for line in lines(cwd / "run") if line["type"] == "RolloutFinished"]
    assert taken == [24 * n for n in range(1, len(taken) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_finishes_the_step_and_saves(number, form, tmp_path):
    program = train("none", form, tmp_path)
    program.wait_for(lambda: program.has_rollouts(3))

    os.killpg(program.process.pid, number)
    code, out, err = program.end()

    assert (code, err) == (130, "")
    assert "Interrupted in stage 'tune'; resume goes on from here." in out and "Go on: rlstages resume run" in out
    assert lines(tmp_path / "run")[-1]["outcome"] == "interrupted"
    resume_and_interrupt(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_second_ctrl_c_stops_at_once(form, tmp_path):
    program = train("hangs", form, tmp_path)
    program.wait_for(lambda: program.has_rollouts(2))
    time.sleep(1.5)
    started = time.monotonic()

    os.killpg(program.process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert program.process.poll() is None, "the first one waits for the step"
    os.killpg(program.process.pid, signal.SIGINT)
    code, out, err = program.end(10)

    assert time.monotonic() - started < 5
    assert code == 130 and err.strip() == "stopped at once; what came after the last checkpoint is lost."
    last = lines(tmp_path / "run")[-1]
    assert (last["outcome"], last["reason"]) == ("failed", "Stopped at once.")
    resume_and_interrupt(tmp_path)


def sharers(session):
    """The processes of a session that have the memory of observations, which has no name to find it by otherwise."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(place.name)) == session and NAME in (place / "maps").read_text():
                found.append(int(place.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hangs", "hangs in C", "none"])
def test_no_worker_outlives_a_killed_trainer(fault, tmp_path):
    program = train(fault, "subprocess", tmp_path)
    program.wait_for(lambda: program.has_rollouts(2))
    time.sleep(1.0)
    children = descendants(program.process.pid)
    assert len(children) >= 4
    assert len(sharers(program.process.pid)) == 4, "the trainer and its three copies"

    os.kill(program.process.pid, signal.SIGKILL)
    program.process.communicate()

    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in children):
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
        time.sleep(0.05)
    assert sharers(program.process.pid) == [], "the memory of observations is free"
    resume_and_interrupt(tmp_path)


@pytest.mark.slow
def test_what_cannot_be_interrupted_ends_the_process_and_says_so(tmp_path):
    program = train("locks up", "in-process", tmp_path, "-p", "timeout=2")
    program.wait_for(lambda: program.has_rollouts(2))
    started = time.monotonic()

    code, out, err = program.end(20)

    assert code == 1 and time.monotonic() - started < 2 + 5
    assert err.startswith("stopped: A step or reset of copy 2 of ") and "has not come back within 2 seconds" in err
    resume_and_interrupt(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_failing_environment_shows_its_own_traceback_and_nothing_else(form, tmp_path):
    code, out, err = train("raises", form, tmp_path).end()

    assert code == 1
    *trace, last = err.splitlines()
    assert trace[0] == "Traceback (most recent call last):" and trace[-1] == "RuntimeError: the motor is stuck"
    assert "faulty.py" in err and f"{Path(rlstages.__file__).parent}/" not in err and "multiprocessing" not in err
    assert last.startswith("stopped: Faulty(") and last.endswith(
        "copy 2 raised RuntimeError: the motor is stuck in step(), at step 4 of its episode 3. "
        "The last checkpoint is of step 48; 'rlstages resume run' goes on from there."
    )


@pytest.mark.slow
def test_too_few_open_files_are_named(tmp_path):
    before = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))"
    program = train("none", "subprocess", tmp_path, "-p", "copies=40", before=before)
    code, out, err = program.end()

    assert code == 1 and "Traceback" not in err
    assert "40 processes for the copies of an environment need " in err
    assert " open files, and 48 are allowed; raise the limit (ulimit -n), or use fewer copies (n_envs)." in err
    assert "The last checkpoint is of step 0; 'rlstages resume run' goes on from there." in err


@pytest.mark.slow
def test_a_second_run_in_the_same_directory_is_told_who_holds_it(tmp_path):
    program = train("none", "in-process", tmp_path)
    program.wait_for(lambda: program.has_rollouts(1))

    second = Program("resume", "run", cwd=tmp_path)
    code, out, err = second.end()
    assert code == 2
    assert err.startswith(f"error: run belongs to the running process {program.process.pid}, since ")
    assert err.endswith("; wait for it, or stop it.\n") and err.count("\n") == 1
    third = train("none", "in-process", tmp_path)
    code, out, err = third.end()
    assert code == 2 and "run is there already" in err

    os.kill(program.process.pid, signal.SIGINT)
    assert program.end()[0] == 130
    resume_and_interrupt(tmp_path)


DISK = """
import json, os, subprocess, sys
from pathlib import Path
import rlstages
from rlstages.training import trainer
from rlstages.errors import Fault
from rlstages.events import RolloutFinished

sys.path.insert(0, ".")
trainer.CHECKPOINT_SECONDS = 0.0
what = sys.argv[1]
Path("disk").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "disk"], check=True)

class Trouble:
    left = 3
    def __call__(self, event):
        self.left -= isinstance(event.payload, RolloutFinished)
        if self.left == 0 and isinstance(event.payload, RolloutFinished):
            getattr(self, what)()
    def full(self):
        with open("disk/filler", "wb", buffering=0) as filler:
            try:
                while filler.write(b"x" * 4096): pass
            except OSError: pass
    def readonly(self):
        saved = "disk/run/checkpoints"
        subprocess.run(["mount", "--bind", saved, saved], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", saved], check=True)
    def mend(self):
        if what == "full": os.unlink("disk/filler")
        else: subprocess.run(["umount", "disk/run/checkpoints"], check=True)
    def close(self): pass

class Stop:
    left = 6
    def __call__(self, event):
        self.left -= isinstance(event.payload, RolloutFinished)
        if self.left == 0 and isinstance(event.payload, RolloutFinished): os.kill(os.getpid(), 2)
    def close(self): pass

from rlstages.specs.loading import load_curriculum
plan = load_curriculum("plan.py", {"fault": "none"})
said = ""
try:
    rlstages.train(plan, out="disk/run", trackers=[Trouble()])
except Fault as error:
    said = str(error)
Trouble().mend()
outcome = rlstages.resume("disk/run", trackers=[Stop()]).outcome
log = Path("disk/run/events.jsonl").read_text()
print(json.dumps({"said": said, "outcome": outcome, "log": log}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [("full", "the disk is full; free some space"), ("readonly", "the disk is read-only; make it writable")],
)
def test_a_disk_that_takes_nothing_more(what, words, tmp_path):
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk of one's own is not allowed here")
    (tmp_path / "plan.py").write_text(FILE)
    (tmp_path / "disk_trouble.py").write_text(DISK)
    path = os.pathsep.join([str(HERE), surroundings(tmp_path)["PYTHONPATH"]])
    ran = subprocess.run(
        [*alone, sys.executable, "disk_trouble.py", what],
        cwd=tmp_path,
        env=surroundings(tmp_path, PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])

    assert words in told["said"] and "could not be saved" in told["said"], told["said"]
    assert "The last checkpoint is of step 48; 'rlstages resume disk/run' goes on from there." in told["said"]
    assert told["outcome"] == "interrupted"
    events = [json.loads(line) for line in told["log"].splitlines()]
    taken = [event["stage_steps"] for event in events if event["type"] == "RolloutFinished"]
    assert taken == [24 * n for n in range(1, len(taken) + 1)] and len(taken) >= 8
