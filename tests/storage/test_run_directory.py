import json
import os
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import ANY

import numpy as np
import pytest
from refusing import refusal, refused

from rlstages import Agent, Curriculum, Environment, FineTuning, SuccessThreshold
from rlstages.events import Event, Warned
from rlstages.specs.references import load_file, resolve
from rlstages.storage.checkpoints import DiskFault, checkpoint_names
from rlstages.storage.record import new_record, read_record, write_record
from rlstages.storage.run_directory import (
    FIRST_CHECKPOINT,
    RunDirectory,
    free_path,
    read_events,
    slug,
    update_curriculum,
)


def plan(name="poles", **environment):
    stage = FineTuning(
        "tune", Environment("CartPole-v1", **environment), until=SuccessThreshold(0.9), max_steps=100_000
    )
    return Curriculum(name, agent=Agent(n_envs=2), stages=[stage])


def make(path, **environment):
    return RunDirectory.create(
        path, new_record(plan(**environment), 7, {"observation": {"kind": "Discrete"}}, {"threads": 1}, "old-run"), {}
    )


def said(path):
    return [event.payload.message for event in read_events(path)]


# --- the record ---------------------------------------------------------------------------------------------------


def test_the_record_comes_back(tmp_path):
    with make(tmp_path / "runs" / "a") as run:
        record = read_record(run.path)
        assert record == run.record
    assert (record.curriculum, record.seed, record.initial) == (plan(), 7, "old-run")
    assert len(record.run_id) == 8 and record.versions["python"] and "numpy" in record.versions
    assert json.loads((run.path / "run.json").read_text())["digest"] == plan().digest


def test_two_runs_have_two_ids():
    assert new_record(plan(), 0, {}, {}).run_id != new_record(plan(), 0, {}, {}).run_id


def test_the_curriculum_can_be_changed_from_here_on(tmp_path):
    with make(tmp_path / "a") as run:
        update_curriculum(run, plan(gravity=5))
    assert read_record(tmp_path / "a").curriculum == plan(gravity=5)


def test_functions_of_a_file_are_found_again_after_the_runs_have_moved(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "data").mkdir()
    file = tmp_path / "home" / "file_of_a_run.py"
    file.write_text("def make(): return 11\n")
    module = load_file(file)
    (tmp_path / "home" / "runs").symlink_to(tmp_path / "data")
    make(tmp_path / "home" / "runs" / "a").close()
    (tmp_path / "home").rename(tmp_path / "moved")
    (tmp_path / "data" / "a").rename(tmp_path / "moved" / "a")
    relative = json.loads((tmp_path / "moved" / "a" / "run.json").read_text())["sources"]["file_of_a_run"]
    assert relative == "../../home/file_of_a_run.py"
    del sys.modules["file_of_a_run"]
    (tmp_path / "home").mkdir()
    (tmp_path / "moved" / "file_of_a_run.py").rename(file)
    (tmp_path / "moved" / "a").rename(tmp_path / "data" / "a")
    read_record(tmp_path / "data" / "a")
    assert resolve("file_of_a_run:make")() == 11 and resolve("file_of_a_run:make") is not module.make
    del sys.modules["file_of_a_run"]


def test_a_file_that_is_gone_is_named(tmp_path):
    file = tmp_path / "file_that_goes.py"
    file.write_text("def make(): return 11\n")
    load_file(file)
    make(tmp_path / "a").close()
    del sys.modules["file_that_goes"]
    file.unlink()
    read_record(tmp_path / "a")
    assert refusal(resolve, "file_that_goes:make") == ("file-missing", "file_that_goes.py", "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-10],
        lambda text: "[]",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"seed"', '"sead"'),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"sources": {}', '"sources": 5').replace('"sources": {', '"sources": {"a": 5, '),
        lambda text: text.replace('"$type": "Agent"', '"$type": "Agnet"'),
        lambda text: text.replace('"$type": "Curriculum"', '"$type": "Linear"'),
        lambda text: text.replace('"max_steps": 100000', '"max_steps": NaN'),
        lambda text: text.replace('"max_steps": 100000', '"max_steps": ' + "9" * 5000),
        lambda text: text.replace('"max_steps": 100000', '"max_steps": 5'),
    ],
    ids=range(13),
)
def test_a_damaged_record_is_refused(tmp_path, damage):
    make(tmp_path / "a").close()
    file = tmp_path / "a" / "run.json"
    text = damage(file.read_text())
    assert text != file.read_text()
    file.write_text(text)
    assert refusal(read_record, tmp_path / "a") == ("file-damaged", "run.json", "")
    assert refusal(RunDirectory, tmp_path / "a") == ("file-damaged", "run.json", "")


def test_a_record_of_bytes_is_refused(tmp_path):
    make(tmp_path / "a").close()
    (tmp_path / "a" / "run.json").write_bytes(b"\xff\x00\x80")
    assert refusal(read_record, tmp_path / "a") == ("file-damaged", "run.json", "")


def test_what_is_no_run_directory_is_refused_and_left_alone(tmp_path):
    assert refusal(RunDirectory, tmp_path) == ("file-missing", ANY, "")
    assert refusal(RunDirectory, tmp_path / "gone") == ("file-missing", "gone", "")
    assert list(tmp_path.iterdir()) == []


# --- making one ---------------------------------------------------------------------------------------------------


def test_a_taken_path_is_refused_and_left_alone(tmp_path):
    make(tmp_path / "a").close()
    before = (tmp_path / "a" / "run.json").read_bytes()
    assert refusal(make, tmp_path / "a") == ("out-taken", "a", "")
    assert (tmp_path / "a" / "run.json").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    assert refusal(make, tmp_path / "file") == ("out-taken", "file", "")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("path", ["file/run", "file/deep/run", "x" * 300])
def test_a_path_that_cannot_be_made_is_refused(tmp_path, path):
    (tmp_path / "file").write_text("mine")
    assert refusal(make, tmp_path / path) == ("file-unusable", ANY, "")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("owner, name", [(os, "fsync"), (os, "replace"), (os, "truncate"), (os, "ftruncate")])
def test_a_full_disk_leaves_nothing_half_made(tmp_path, monkeypatch, owner, name):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        if name == "truncate":
            make(tmp_path / "a").close()
            return
        assert refusal(make, tmp_path / "a") == ("file-unusable", "a", "")
    assert list(tmp_path.iterdir()) == []
    make(tmp_path / "a").close()


def test_a_free_path_is_found(tmp_path):
    assert free_path(tmp_path, plan("Six Rooms!"), 3) == tmp_path / "six-rooms-s3"
    (tmp_path / "six-rooms-s3").mkdir()
    (tmp_path / "six-rooms-s3-2").write_text("")
    assert free_path(tmp_path, plan("Six Rooms!"), 3) == tmp_path / "six-rooms-s3-3"


@pytest.mark.parametrize(
    "name, text",
    [
        ("..", "unnamed"),
        ("a/b\\c", "a-b-c"),
        ("Räume 二", "räume-二"),
        ("-x.", "x"),
        ("a b.c_d", "a-b.c_d"),
        ("***", "unnamed"),
    ],
)
def test_a_name_becomes_a_file_name(name, text):
    assert slug(name) == text


def test_the_longest_name_of_any_script_fits_a_file_name(tmp_path):
    make(free_path(tmp_path, plan("𝔸" * 80), 2**63)).close()


# --- one owner ----------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from rlstages.storage.run_directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    make(tmp_path / "a").close()
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_with_the_holder_named_until_that_is_killed(tmp_path, holder):
    path = tmp_path / "a"
    for _ in range(2):  # Being refused must not set it free.
        with refused("run-busy", where="a") as caught:
            RunDirectory(path)
        # Whose it is stands in the sentence alone.
        assert f"process {holder.pid}, since {time.strftime('%Y-')}" in str(caught.value)
    assert read_record(path).seed == 7
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    RunDirectory(path).close()


def test_a_second_owner_in_the_same_process_is_refused_until_the_first_closes(tmp_path):
    with make(tmp_path / "a") as run:
        assert refusal(RunDirectory, tmp_path / "a") == ("run-busy", "a", "")
        assert refusal(RunDirectory, tmp_path / "a" / ".." / "a") == ("run-busy", "a", "")
        other = [sys.executable, "-c", HOLD, str(run.path)]
        refused = subprocess.run(other, capture_output=True, text=True, check=False)
        assert f"belongs to the running process {os.getpid()}" in refused.stderr
    RunDirectory(tmp_path / "a").close()
    run.close()


def test_a_directory_without_room_for_a_lock_is_refused(tmp_path):
    make(tmp_path / "a").close()
    (tmp_path / "a" / "lock").unlink()
    (tmp_path / "a" / "lock").mkdir()
    assert refusal(RunDirectory, tmp_path / "a") == ("file-unusable", "a", "")


# --- events and checkpoints ---------------------------------------------------------------------------------------


def tell(run, *messages):
    for message in messages:
        run.append(Event(Warned(message), 0))


def test_events_are_read_in_order_and_a_torn_last_line_is_left_out(tmp_path):
    with make(tmp_path / "a") as run:
        assert said(run.path) == []
        tell(run, "one", "zwei \u2028 \n 二", "\udcff")
    assert said(run.path) == ["one", "zwei \u2028 \n 二", "\udcff"]
    whole = (run.path / "events.jsonl").read_bytes()
    for cut in (1, 10, len(whole.splitlines()[-1]) - 1):
        (run.path / "events.jsonl").write_bytes(whole[:-cut])
        assert said(run.path) == ["one", "zwei \u2028 \n 二"]


@pytest.mark.parametrize("line", [b"{", b"[]", b"5", b"{}", b"\xff\xfe", b'{"v": 1, "type": "Warned"}', b""])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    with make(tmp_path / "a") as run:
        tell(run, "one", "two")
    first, second = (run.path / "events.jsonl").read_bytes().splitlines()
    (run.path / "events.jsonl").write_bytes(b"\n".join([first, line, second, b""]))
    events = read_events(run.path)
    assert next(events).payload.message == "one"
    assert refusal(next, events) == ("file-damaged", "events.jsonl, line 2", "")


def test_restoring_cuts_the_log_back_to_the_checkpoint(tmp_path):
    with make(tmp_path / "a") as run:
        tell(run, "before")
        run.save("1", {"weights": np.arange(3)})
        tell(run, "after the checkpoint")
    with (tmp_path / "a" / "events.jsonl").open("ab") as file:
        file.write(b'{"torn')
    with RunDirectory(tmp_path / "a") as run:
        name, state, damaged = run.restore()
        assert (name, state["weights"].tolist(), damaged) == ("1", [0, 1, 2], [])
        assert said(run.path) == ["before"]
        tell(run, "again")
    assert said(run.path) == ["before", "again"]


def test_a_run_can_be_restored_from_its_first_moment_on(tmp_path):
    with make(tmp_path / "a") as run:
        tell(run, "lost")
    with RunDirectory(tmp_path / "a") as run:
        assert run.restore() == (FIRST_CHECKPOINT, {"events_bytes": 0}, []) and said(run.path) == []


def test_a_run_without_checkpoints_cannot_be_restored(tmp_path):
    with make(tmp_path / "a") as run:
        shutil.rmtree(run.path / "checkpoints")
        assert refusal(run.restore) == ("file-damaged", "a", "")


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    with make(tmp_path / "a") as run:
        for number in range(2, 6):
            tell(run, str(number))
            run.save(f"{number:08d}", {"number": number})
        assert checkpoint_names(run.path / "checkpoints") == ["00000003", "00000004", "00000005"]
        assert run.restore()[1]["number"] == 5


def damage(run, name):
    file = run.path / "checkpoints" / name / "state.json"
    file.write_bytes(file.read_bytes()[:-1])


def test_damaged_newest_checkpoints_are_passed_over_with_a_sentence_each_and_written_again(tmp_path):
    with make(tmp_path / "a") as run:
        for number in (1, 2, 3):
            tell(run, str(number))
            run.save(str(number), {"number": number})
        damage(run, "3")
        damage(run, "2")
    with RunDirectory(tmp_path / "a") as run:
        name, state, damaged = run.restore()
        assert (name, state["number"]) == ("1", 1) and said(run.path) == ["1"]
        assert damaged == [
            f"Checkpoint {n}: its files do not match its manifest. The one before it is used." for n in ("3", "2")
        ]
        tell(run, "2 again")
        run.save("2", {"number": 2})
    with RunDirectory(tmp_path / "a") as run:
        assert run.restore()[::2] == ("2", []) and said(run.path) == ["1", "2 again"]


def test_when_all_checkpoints_are_damaged_nothing_is_thrown_away(tmp_path):
    with make(tmp_path / "a") as run:
        tell(run, "1")
        run.save("1", {})
        damage(run, FIRST_CHECKPOINT)
        damage(run, "1")
        assert refusal(run.restore) == ("file-damaged", "a", "")
        assert said(run.path) == ["1"]
        assert checkpoint_names(run.path / "checkpoints") == [FIRST_CHECKPOINT, "1"]


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with make(tmp_path / "a") as run, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with refused("file-unusable", kind=DiskFault):
            write_record(run.path, new_record(plan("other"), 0, {}, {}))
        with refused("file-unusable", kind=DiskFault):
            run.save("1", {})
    assert read_record(tmp_path / "a").curriculum.name == "poles"
    assert checkpoint_names(tmp_path / "a" / "checkpoints") == [FIRST_CHECKPOINT]


def test_record_of_before_parameters_were_kept_is_read(tmp_path):
    make(tmp_path / "a").close()
    file = tmp_path / "a" / "run.json"
    data = json.loads(file.read_text())
    for name in ("parameters", "notes", "tags", "origin"):
        del data[name]
    file.write_text(json.dumps(data))
    record = read_record(tmp_path / "a")
    assert (record.parameters, record.notes, record.tags, record.origin) == ({}, None, (), None)


@pytest.mark.parametrize(
    ("name", "value"), [("parameters", [1]), ("notes", 3), ("tags", [3]), ("tags", 3), ("origin", {"name": "a"})]
)
def test_record_with_damaged_notes_is_refused(name, value, tmp_path):
    make(tmp_path / "a").close()
    file = tmp_path / "a" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    assert refusal(read_record, tmp_path / "a") == ("file-damaged", "run.json", "")
