"""Random changes to every file that is read: refused in a sentence or read; no code, no traceback, no wait."""

import collections
import io
import json
import random
import signal
import sys
import time
import zipfile
from contextlib import redirect_stdout

import numpy as np
import pytest
from fuzzing import bytes_changed, data_changed, json_changed, tensors_changed
from safetensors.numpy import save as to_safetensors

from rlstages import InputError, load_demonstrations, load_policy
from rlstages.cli.showing import show_run
from rlstages.play.saved_policies import learner_of
from rlstages.storage.checkpoints import STATE, TENSORS, DamagedCheckpoint, _manifest, checkpoint_names, read_checkpoint
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import read_events
from rlstages.storage.trust import trust_sources
from rlstages.tracking.console import console_tracker
from rlstages.training.resuming import _fitting
from runs import digest_of

# What a file could do if it ran code; reading does none of it.
FORBIDDEN = (
    "pickle.find_class",
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
)
SECONDS = 2.0
_watching, _seen = [False], []


def _audit(event, arguments):
    if _watching[0] and event in FORBIDDEN:
        _seen.append((event, arguments))


sys.addaudithook(_audit)


class Hang(BaseException):
    pass


def _hang(number, frame):
    raise Hang


def npz_changed(draw, content):
    """Change an archive as bytes, or a member before it is packed."""
    if draw.random() < 0.5:
        return bytes_changed(draw, content)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", draw.choice([0, 8])) as new:
        victim = draw.choice(old.namelist())
        for name in old.namelist():
            body = old.read(name)
            if name == victim:
                head, rest = body[:128], body[128:]
                body = draw.choice([bytes_changed(draw, body), bytes_changed(draw, head) + rest])
            new.writestr(draw.choice([name] * 9 + [f"other-{name}"]), body)
    return stream.getvalue()


ARRAYS = {
    "observations": np.zeros((7, 3), np.float32),
    "actions": np.zeros(5, np.int64),
    "rewards": np.ones(5),
    "lengths": np.array([2, 3]),
    "success": np.array([True, False]),
}


def packed(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def demonstrations(ending, whole, change):
    def make(run, scratch):
        file = scratch / f"a.{ending}"

        def case(draw):
            file.write_bytes(change(draw, whole))
            return lambda: load_demonstrations(file)

        return case

    return make


def record(run, scratch):
    whole = (run / "run.json").read_bytes()

    def case(draw):
        content = json_changed(draw, whole)
        if draw.random() < 0.8:
            try:
                data = json.loads(content)
                data["digest"] = digest_of(data["curriculum"])
                content = json.dumps(data).encode()
            except (KeyError, TypeError, ValueError, RecursionError):
                pass
        (run / "run.json").write_bytes(content)

        def use():
            trust_sources(run, read_record(run))
            load_policy(run)

        return use

    return case


def events(run, scratch):
    lines = (run / "events.jsonl").read_bytes().splitlines()
    curriculum = read_record(run).curriculum

    def case(draw):
        changed = list(lines)
        place = draw.randrange(len(lines))
        changed[place] = json_changed(draw, lines[place])
        if draw.random() < 0.1:
            changed.insert(draw.randrange(len(lines)), draw.choice(lines))
        (run / "events.jsonl").write_bytes(b"\n".join(changed) + draw.choice([b"\n", b"\n", b""]))

        def use():
            with redirect_stdout(io.StringIO()):
                console_tracker(curriculum, history=list(read_events(run))).close()
                show_run(run, True)
                show_run(run, False)
            load_policy(run)

        return use

    return case


def policy(run, scratch):
    """Policies whose digest in the log is right."""
    file = run / "policies" / "01-easy.safetensors"
    whole, learner = file.read_bytes(), learner_of(read_record(run))

    def case(draw):
        file.write_bytes(tensors_changed(draw, whole))

        def use():
            from rlstages.learners.learner import read_policy

            learner.load_policy(read_policy(file))

        return use

    return case


def checkpoint(run, scratch):
    """Checkpoints whose manifest is right."""
    path = run / "checkpoints" / checkpoint_names(run / "checkpoints")[-1]
    whole = {name: (path / name).read_bytes() for name in (TENSORS, STATE)}
    state = json.loads(whole[STATE])
    learner = learner_of(read_record(run))

    def case(draw):
        files = dict(whole)
        if draw.random() < 0.5:
            files[TENSORS] = tensors_changed(draw, whole[TENSORS])
        else:
            files[STATE] = draw.choice(
                [json_changed(draw, whole[STATE]), json.dumps(data_changed(draw, state)).encode()]
            )
        for name, content in files.items():
            (path / name).write_bytes(content)
        (path / "manifest.json").write_bytes(_manifest(files))

        def use():
            found = read_checkpoint(path)
            with _fitting(path.name):
                learner.load_state_dict(found["learner"])

        return use

    return case


LOADERS = {
    "run.json": (record, 2_000),
    "events.jsonl": (events, 1_500),
    "policy": (policy, 1_500),
    "checkpoint": (checkpoint, 2_000),
    "demonstrations .safetensors": (demonstrations("safetensors", to_safetensors(ARRAYS), tensors_changed), 1_500),
    "demonstrations .npz": (demonstrations("npz", packed(ARRAYS), npz_changed), 2_000),
}


def fuzz(name, run, scratch, cases):
    make, _ = LOADERS[name]
    case = make(run, scratch)
    counts, slowest = collections.Counter(), 0.0
    previous = signal.signal(signal.SIGALRM, _hang)
    try:
        for seed in range(cases):
            use = case(random.Random(f"{name} {seed}"))
            # Of the processor, so that a busy machine takes no longer; the alarm is for what hangs.
            started = time.process_time()
            signal.setitimer(signal.ITIMER_REAL, 30 * SECONDS)
            _watching[0] = True
            try:
                use()
                counts["read"] += 1
            except (InputError, DamagedCheckpoint) as error:
                assert "\n" not in str(error), (seed, str(error))
                counts["refused"] += 1
            except Exception as error:
                raise AssertionError(f"{name}, seed {seed}: {type(error).__name__}: {error}") from error
            finally:
                _watching[0] = False
                signal.setitimer(signal.ITIMER_REAL, 0)
            took = time.process_time() - started
            slowest = max(slowest, took)
            assert took < SECONDS, f"{name}, seed {seed} took {took:.1f} s"
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not _seen, _seen
    print(f"{name}: {cases} cases, {dict(counts)}, slowest {slowest:.2f} s, 0 code executions")
    return counts


@pytest.mark.parametrize("name", LOADERS)
def test_some_changes_are_refused_or_read(name, run, tmp_path):
    counts = fuzz(name, run, tmp_path, 60)
    assert counts["refused"] > 10


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_many_changes_are_refused_or_read(name, run, tmp_path):
    counts = fuzz(name, run, tmp_path, LOADERS[name][1])
    assert counts["refused"] > LOADERS[name][1] / 10


def test_there_are_enough_of_them():
    assert sum(cases for _, cases in LOADERS.values()) >= 10_000
