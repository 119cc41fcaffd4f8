"""Damaged checkpoints: every one is noticed, the one before it is used, and its state is exactly what was written."""

import random
import shutil

import numpy as np
import pytest
from refusing import refused

from rlstages import load_policy
from rlstages.learners.learner import read_policy
from rlstages.play.saved_policies import last_finished
from rlstages.storage.checkpoints import MANIFEST, STATE, TENSORS, checkpoint_names, read_checkpoint
from rlstages.storage.run_directory import RunDirectory

FILES = [TENSORS, STATE, MANIFEST]


def classes(name, content):
    """Places in a file by what lies there."""
    if name == TENSORS:
        header = 8 + int.from_bytes(content[:8], "little")
        return {"length": range(8), "header": range(8, header), "numbers": range(header, len(content))}
    digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    marks = [i for i, byte in enumerate(content) if chr(byte) in '{}[]:,"']
    letters = [i for i, byte in enumerate(content) if chr(byte).isalpha()]
    return {"digits": digits, "marks": marks, "letters": letters}


def flip(draw, content, place):
    return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]


CHANGES = {
    "flip": flip,
    "cut": lambda draw, content, place: content[:place],
    "drop": lambda draw, content, place: content[:place] + content[place + draw.randint(1, 64) :],
    "repeat": lambda draw, content, place: content[: place + 16] + content[place:],
    "zero": lambda draw, content, place: (
        content[:place] + bytes(len(content[place : place + 64])) + content[place + 64 :]
    ),
    "swap": lambda draw, content, place: content[place:] + content[:place],
    "insert": lambda draw, content, place: content[:place] + draw.randbytes(1) + content[place:],
}


def damages(newest, before, each):
    """Yield ways to damage the newest checkpoint."""
    draw = random.Random(0)
    for name in FILES:
        content, other = (newest / name).read_bytes(), (before / name).read_bytes()
        for kind, places in classes(name, content).items():
            for change, apply in CHANGES.items():
                for _ in range(each):
                    damaged = apply(draw, content, draw.choice(places))
                    if damaged != content:
                        yield f"{change} in {name}'s {kind}", name, damaged
        yield f"no {name}", name, None
        yield f"empty {name}", name, b""
        if other != content:
            yield f"the other checkpoint's {name}", name, other
        yield f"{name} twice", name, content * 2


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


def check_damages(run, each, least):
    checkpoints = run / "checkpoints"
    *_, before, newest = checkpoint_names(checkpoints)
    wanted = read_checkpoint(checkpoints / before)
    kept, log = run / "kept", (run / "events.jsonl").read_bytes()
    shutil.copytree(checkpoints / newest, kept)
    cases = list(damages(checkpoints / newest, checkpoints / before, each))
    for what, name, content in cases:
        shutil.rmtree(checkpoints / newest, ignore_errors=True)
        shutil.copytree(kept, checkpoints / newest)
        (run / "events.jsonl").write_bytes(log)
        (checkpoints / newest / name).unlink()
        if content is not None:
            (checkpoints / newest / name).write_bytes(content)
        with RunDirectory(run) as owned:
            found, state, said = owned.restore()
        assert (found, len(said)) == (before, 1), what
        assert said[0].startswith(f"Checkpoint {newest}: ") and said[0].endswith("The one before it is used."), said
        assert "\n" not in said[0] and len(said[0]) < 300
        assert same(state, wanted), what
    print(f"{len(cases)} damaged checkpoints: all noticed, the one before in their place, bit for bit")
    assert len(cases) >= least


def test_some_damages_are_noticed(run):
    check_damages(run, each=1, least=70)


@pytest.mark.soak
@pytest.mark.slow
def test_every_class_of_damage_is_noticed(run):
    check_damages(run, each=9, least=500)


def test_swapped_checkpoints_are_noticed(run):
    checkpoints = run / "checkpoints"
    *_, before, newest = checkpoint_names(checkpoints)
    (checkpoints / before).rename(checkpoints / "aside")
    (checkpoints / newest).rename(checkpoints / before)
    (checkpoints / "aside").rename(checkpoints / newest)
    with RunDirectory(run) as owned:
        # Each is whole, and says itself how much of the log belongs to it.
        _, state, _ = owned.restore()
        assert (run / "events.jsonl").stat().st_size == state["events_bytes"]


def test_a_log_that_lost_events_takes_the_run_back_to_where_it_is_whole(run):
    checkpoints = run / "checkpoints"
    names = checkpoint_names(checkpoints)
    sizes = [read_checkpoint(checkpoints / name)["events_bytes"] for name in names]
    log = (run / "events.jsonl").read_bytes()
    (run / "events.jsonl").write_bytes(log[: sizes[-1] - 1])
    with RunDirectory(run) as owned:
        found, state, said = owned.restore()
    assert sizes[-2] < sizes[-1] and found == names[-2]
    assert "events.jsonl has lost events that it counts on" in said[0]
    assert (run / "events.jsonl").read_bytes() == log[: sizes[-2]]


def test_a_changed_policy_file_is_never_used(run):
    file = run / last_finished(run)[1].policy
    content = file.read_bytes()
    assert load_policy(run) is not None
    draw = random.Random(1)
    for _ in range(50):
        file.write_bytes(flip(draw, content, draw.randrange(len(content))))
        with refused("file-damaged", where="01-easy.safetensors"):
            load_policy(run)
    file.write_bytes(content[:-1])
    with refused("file-damaged", where="01-easy.safetensors"):
        read_policy(file)
