"""Let a process die, or its disk fail, at every file-system call of a save and of an event append; then go on.

Run as a script (a folder, every how many calls, kinds of work, kinds of strike) it prints a line of JSON for each case.
Everything is imported once; each case runs in a fork, on a copy of a real run that was interrupted, and is resumed by
the trainer in another. The run must end as one of two that were never disturbed: the one without what was being
written, or the one with it.
"""

import errno
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

WRITES = ["write", "pwrite"]
CHANGES = ["open", "close", "fsync", "ftruncate", "truncate", "mkdir", "rename", "replace", "unlink", "rmdir", *WRITES]
READS = ["stat", "lstat", "fstat", "scandir", "listdir"]
TAKE_ROOM = ["open", "fsync", "ftruncate", "mkdir", "rename", "replace", *WRITES]
ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO}
# What happens at which calls: killed before it or in the middle of writing, or an error, once or from then on.
MODES = {
    "kill": CHANGES,
    "torn": WRITES,
    "full": TAKE_ROOM,
    "full for good": TAKE_ROOM,
    "broken": CHANGES + READS,
    "broken for good": CHANGES + READS,
}


class Seam:
    """Stands between Python and the system's calls once it is armed."""

    def __init__(self):
        self.left, self.mode, self.struck = None, "", None
        for name in CHANGES + READS:
            setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name, real):
        def call(*args, **kwargs):
            if self.left is not None and name in MODES[self.mode]:
                self.left -= 1
                if self.left == 0 or (self.left < 0 and self.mode.endswith("for good")):
                    self._strike(name, real, args)
            return real(*args, **kwargs)

        return call

    def _strike(self, name, real, args):
        self.struck = self.struck or name
        kind = self.mode.partition(" ")[0]
        if kind in ("torn", "full") and name in WRITES:
            real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
        if kind in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]))

    def arm(self, call, mode):
        self.left, self.mode, self.struck = call, mode, None

    def disarm(self):
        self.left = None


def in_fork(work):
    """Run `work` in a fork; return what it returned, or how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            answer = {"answer": work()}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"signal": -os.waitstatus_to_exitcode(status)}


def events_of(path):
    """The events of a run without what the clock decides."""
    with (path / "events.jsonl").open("rb") as lines:
        found = [json.loads(line) for line in lines]
    clock = ("time", "seconds", "steps_per_second")
    return [{key: value for key, value in event.items() if key not in clock} for event in found]


def make_base(path):
    """Train a run of three stages, interrupted in the last one."""
    from building import cloning, curriculum, tuning

    from rlstages import Environment, Expert, SuccessThreshold, train
    from rlstages.events import RolloutFinished
    from rlstages.training import trainer

    trainer.CHECKPOINT_SECONDS = 0.0
    always = Environment("toys:Always")
    easy = {"until": SuccessThreshold(0.5, window=4, max_episodes=120), "critic_fit_steps": 0, "max_steps": 1_500}
    hard = {**easy, "until": SuccessThreshold(0.99, margin=0.5, window=16, max_episodes=120)}
    plan = curriculum(
        cloning(environment=always, expert=Expert("toys:tell_zero", episodes=3), max_epochs=2),
        tuning("easy", always, **easy),
        tuning("last", always, **hard),
    )

    class Stop:
        def __call__(self, event):
            if event.stage_index == 2 and isinstance(event.payload, RolloutFinished):
                signal.raise_signal(signal.SIGINT)

        def close(self):
            pass

    assert train(plan, out=path, trackers=[Stop()]).outcome == "interrupted"


def go_on(path):
    from rlstages import resume

    outcome = resume(path, trust_imports=True).outcome
    left = [str(p.relative_to(path)) for p in path.rglob(".*")]
    return {"outcome": outcome, "events": events_of(path), "left": left}


class Work:
    """What is done to a run directory that is owned, in two halves: what leads there, and what is disturbed."""

    def __init__(self, path):
        from rlstages.events import Event, Warned
        from rlstages.storage.run_directory import RunDirectory

        self.run = RunDirectory(path)
        self.name, self.state, _ = self.run.restore()
        self.event = Event(Warned("said once"), 0)

    def append(self):
        self.run.append(self.event)

    def save(self, end=False):
        state = {**self.state, "saves": self.state["saves"] + 1}
        self.run.save(f"{state['saves']:08d}", state, end)

    def save_end(self):
        self.save(end=True)

    def policy(self):
        from rlstages.storage.checkpoints import replace_durably

        file = self.run.path / "policies" / "02-last.safetensors"
        replace_durably(file, b"x" * 5_000)

    def record(self):
        from rlstages.storage.run_directory import update_curriculum

        update_curriculum(self.run, self.run.record.curriculum)


LOGGED = ("append", "save", "save_end")
BEFORE = {"append": [], "save": ["append"], "save_end": ["append"], "policy": [], "record": []}


def disturb(seam, path, kind, call, mode):
    """Do one kind of work with a strike at a call; a run that survives it does it again, undisturbed."""
    from rlstages.storage.checkpoints import DiskFault

    work = Work(path)
    for step in BEFORE[kind]:
        getattr(work, step)()
    seam.arm(call, mode)
    try:
        getattr(work, kind)()
        said = None
    except DiskFault as error:
        said = str(error)
    finally:
        struck, calls = seam.struck, call - seam.left
        seam.disarm()
    if said is not None:
        # The disk has room again, and the run goes on in the same process.
        uncertain = "did not confirm" in said
        if not uncertain:
            getattr(work, kind)()
    lines = (path / "events.jsonl").read_bytes().split(b"\n")
    assert lines[-1] == b"" and all(json.loads(line) for line in lines[:-1])
    assert sum(b"said once" in line for line in lines) == (kind in LOGGED)
    return {"struck": struck, "said": said, "calls": calls}


def main(folder, every, kinds, modes):
    for name in ("imitation.algorithms.bc", "rlstages.training.trainer"):
        importlib.import_module(name)
    # Forks are quick as long as they change nothing of what they share.
    gc.freeze()
    gc.disable()
    seam = Seam()
    base, copy = folder / "base", folder / "copy"
    made = in_fork(lambda: make_base(base))
    assert "answer" in made, made

    def fresh():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(base, copy)
        return copy

    def ending(*kinds):
        """How a run ends on which this was done without disturbance."""
        fresh()

        def work():
            done = Work(copy)
            for kind in kinds:
                getattr(done, kind)()

        assert "answer" in in_fork(work)
        return in_fork(lambda: go_on(copy))

    endings = {(): ending()} | {(*BEFORE[kind], kind): ending(*BEFORE[kind], kind) for kind in kinds if kind in LOGGED}
    assert all(end["answer"]["outcome"] == "reached" for end in endings.values()), endings
    number = 0
    for kind in kinds:
        before = BEFORE[kind]
        known = [endings[()], endings.get((*before, kind), endings[()])]
        for mode in modes:
            fresh()
            calls = in_fork(partial(disturb, seam, copy, kind, 10**6, mode))["answer"]["calls"]
            for call in range(1, calls + 1):
                number += 1
                if number % every:
                    continue
                fresh()
                done = in_fork(partial(disturb, seam, copy, kind, call, mode))
                after = in_fork(lambda: go_on(copy))
                case = {"kind": kind, "mode": mode, "call": call, "done": done, **judge(done, after, known)}
                print(json.dumps(case), flush=True)


def judge(done, after, known):
    """Say whether a disturbed run ended as an undisturbed one, and as the later one if the work was done."""
    ended = after.get("answer", {"events": None, "left": None})
    endings = [end["answer"]["events"] for end in known]
    committed = "answer" in done and done["answer"]["said"] is None
    right = "error" not in done and ended["left"] == [] and ended["events"] in (endings[1:] if committed else endings)
    return {"right": right, "why": None if right else {key: after[key] for key in after if key != "answer"}}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4].split(","))
