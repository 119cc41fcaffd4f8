import os
import random

import numpy as np
import pytest
from refusing import refused

from rlstages.storage.checkpoints import (
    MANIFEST,
    STATE,
    TENSORS,
    DamagedCheckpoint,
    DiskFault,
    checkpoint_names,
    clear_leftovers,
    prune,
    read_checkpoint,
    replace_durably,
    write_checkpoint,
)

STATE_DTYPES = [np.bool_, np.int8, np.int64, np.uint8, np.uint32, np.uint64, np.float16, np.float32, np.float64]


def same(one, other):
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_a_state_comes_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    state = {
        "arrays": {str(np.dtype(t)): (rng.random((2, 3)) * 100).astype(t) for t in STATE_DTYPES},
        "scalars": [np.array(3.5), np.array(True), np.array(-7, np.int64)],
        "empty": [np.zeros((0, 3), np.float32), np.zeros(0, np.int64)],
        "strange": np.array([np.nan, np.inf, -0.0]),
        "turned": np.arange(6).reshape(2, 3).T,
        "plain": {
            "none": None,
            "yes": True,
            "int": -3,
            "float": 0.1,
            "text": "Übung 二 😀",
            "list": [1, [2, None], {}],
        },
        "ключ/with slash": {"a/b": np.ones(1), "a": {"b": np.zeros(1)}},
        "0": [np.ones(2), {"1": np.zeros(2)}],
        "random": {"numpy": np.random.PCG64(7).state, "python": list(random.Random(3).getstate()[1])},
        "huge": 2**128 - 1,
    }
    assert same(read_checkpoint(write_checkpoint(tmp_path, "1", state)), state)


def test_numpy_scalars_become_pythons_and_tuples_lists(tmp_path):
    state = read_checkpoint(write_checkpoint(tmp_path, "1", {"a": np.float32(0.5), "b": (np.int64(3),), 4: None}))
    assert state == {"a": 0.5, "b": [3], "4": None} and type(state["a"]) is float


def test_a_state_without_arrays_and_an_empty_one_come_back(tmp_path):
    assert read_checkpoint(write_checkpoint(tmp_path, "1", {})) == {}
    assert read_checkpoint(write_checkpoint(tmp_path, "2", {"a": []})) == {"a": []}


@pytest.mark.parametrize(
    "state",
    [
        {"a": float("nan")},
        {"a": np.array([object()])},
        {"a": np.array(["text"])},
        {"a": np.array([1j])},
        {"a": {1: 2, "1": 3}},
        {"a": {"$tensor": "a"}},
        {"a": {1, 2}},
        {"a": b"bytes"},
    ],
    ids=["nan", "objects", "text", "complex", "two keys alike", "a reserved key", "a set", "bytes"],
)
def test_a_state_that_would_not_come_back_is_refused_and_nothing_is_written(tmp_path, state):
    with pytest.raises((ValueError, TypeError)):
        write_checkpoint(tmp_path, "1", state)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small(tmp_path):
    return write_checkpoint(tmp_path, "1", {"weights": np.arange(3, dtype=np.float32), "step": 5, "name": None})


@pytest.mark.parametrize("file", [TENSORS, STATE, MANIFEST])
def test_every_changed_byte_is_noticed(small, file):
    whole = (small / file).read_bytes()
    for place in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            (small / file).write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            with pytest.raises(DamagedCheckpoint):
                read_checkpoint(small)
    (small / file).write_bytes(whole)
    assert read_checkpoint(small)["step"] == 5


@pytest.mark.parametrize("file", [TENSORS, STATE, MANIFEST])
def test_every_cut_is_noticed_and_so_is_what_was_added(small, file):
    whole = (small / file).read_bytes()
    for end in range(len(whole)):
        (small / file).write_bytes(whole[:end])
        with pytest.raises(DamagedCheckpoint):
            read_checkpoint(small)
    (small / file).write_bytes(whole + b" ")
    with pytest.raises(DamagedCheckpoint, match="1: its files do not match its manifest"):
        read_checkpoint(small)


@pytest.mark.parametrize("file", [TENSORS, STATE, MANIFEST])
def test_a_missing_file_is_named(small, file):
    (small / file).unlink()
    with pytest.raises(DamagedCheckpoint, match=f"1: {file} cannot be read"):
        read_checkpoint(small)
    (small / file).mkdir()
    with pytest.raises(DamagedCheckpoint, match=f"1: {file} is no regular file"):
        read_checkpoint(small)


def test_files_of_two_checkpoints_do_not_mix(small, tmp_path):
    other = write_checkpoint(tmp_path, "2", {"weights": np.ones(3, np.float32), "step": 6, "name": None})
    (other / STATE).replace(small / STATE)
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(small)


def break_after(monkeypatch, owner, name, calls):
    """Let a function of the operating system fail at its n-th call."""
    real, left = getattr(owner, name), [calls]

    def fails(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, fails)


BEFORE_THE_RENAME = [(os, "mkdir", 0), (os, "write", 1), *((os, "fsync", n) for n in range(4)), (os, "rename", 0)]


@pytest.mark.parametrize("owner, name, calls", BEFORE_THE_RENAME)
def test_a_failing_write_leaves_the_earlier_ones_and_nothing_half_made(
    small, tmp_path, monkeypatch, owner, name, calls
):
    with monkeypatch.context() as patch:
        break_after(patch, owner, name, calls)
        with refused("file-unusable", where="checkpoint 2", kind=DiskFault):
            write_checkpoint(tmp_path, "2", {"step": 6})
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert read_checkpoint(small)["step"] == 5
    assert read_checkpoint(write_checkpoint(tmp_path, "2", {"step": 6})) == {"step": 6}


def test_an_error_after_the_rename_says_that_the_commit_is_uncertain(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, "1", {"step": 5})
    with monkeypatch.context() as patch:
        break_after(patch, os, "fsync", 4)
        with refused("file-unconfirmed", where="checkpoint 2", kind=DiskFault):
            write_checkpoint(tmp_path, "2", {"step": 6})
    with monkeypatch.context() as patch:
        break_after(patch, os, "fsync", 1)
        with refused("file-unconfirmed", where="run.json", kind=DiskFault):
            replace_durably(tmp_path / "run.json", b"new")
    assert read_checkpoint(tmp_path / "2")["step"] == 6


def test_what_a_killed_writer_left_is_invisible_and_swept_up(small, tmp_path):
    leftover = tmp_path / ".writing-2"
    leftover.mkdir()
    (leftover / STATE).write_text("{")
    assert checkpoint_names(tmp_path) == ["1"]
    write_checkpoint(tmp_path, "2", {"step": 6})
    (tmp_path / ".writing-3").mkdir()
    (tmp_path / ".deleting-0").mkdir()
    (tmp_path / ".writing-run.json").write_text("{")
    clear_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("keep, left", [(0, []), (1, ["4"]), (3, ["2", "3", "4"]), (9, ["1", "2", "3", "4"])])
def test_the_newest_are_kept(tmp_path, keep, left):
    for name in ("3", "1", "4", "2"):
        write_checkpoint(tmp_path, name, {})
    prune(tmp_path, keep)
    assert checkpoint_names(tmp_path) == left
    assert checkpoint_names(tmp_path / "nowhere") == []


def test_some_are_kept_always_and_do_not_count(tmp_path):
    for name in ("1-end", "2", "3", "4-end", "5"):
        write_checkpoint(tmp_path, name, {})
    prune(tmp_path, 1, always=["1-end", "4-end", "9-end"])
    assert checkpoint_names(tmp_path) == ["1-end", "4-end", "5"]


def test_a_checkpoint_is_deleted_at_once_or_not_at_all(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, "1", {})
    with monkeypatch.context() as patch:
        break_after(patch, os, "unlink", 1)
        prune(tmp_path, 0)
    assert checkpoint_names(tmp_path) == [] and [p.name for p in tmp_path.iterdir()] == [".deleting-1"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    replace_durably(path, b"old")
    for name in ("replace", "open", "write", "fsync"):
        with monkeypatch.context() as patch:
            break_after(patch, os, name, 0)
            with refused("file-unusable", where="run.json", kind=DiskFault):
                replace_durably(path, b"new")
        assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["run.json"]
    replace_durably(path, b"new")
    assert path.read_bytes() == b"new"
