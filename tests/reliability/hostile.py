"""Run directories and files that try to run code, to reach out of their directory, or to take all time and memory."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import save as to_safetensors

from rlstages import InputError, load_demonstrations, load_policy, resume
from rlstages.cli.showing import show_run
from rlstages.play.saved_policies import evaluate
from rlstages.storage.checkpoints import MANIFEST, STATE, TENSORS, _manifest, checkpoint_names
from runs import digest_of

EVIL = """
from pathlib import Path
Path({canary!r}).touch()
def anything(*args, **kwargs):
    pass
def curriculum():
    pass
"""


class Payload:
    """Makes the canary when it is unpickled."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return open, (self.canary, "w")


def jsonpickled(canary):
    return {"py/reduce": [{"py/function": "builtins.open"}, {"py/tuple": [str(canary), "w"]}]}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def zipped(members, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def header(content, body=b""):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + body


ARRAYS = {
    "observations": np.zeros((7, 3), np.float32),
    "actions": np.zeros(5, np.int64),
    "rewards": np.ones(5),
    "lengths": np.array([2, 3]),
}


def demonstrations(name, content):
    """A file of demonstrations."""

    def make(run, canary):
        file = run.parent / name
        file.write_bytes(content(canary) if callable(content) else content)
        return lambda: load_demonstrations(file)

    return make


def npz_with_header(text):
    body = text.encode().ljust(118) + b"\n"
    return zipped({"rewards.npy": b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + bytes(40)})


def overlapping(canary):
    """Many entries of the archive's directory that all unpack the same megabytes."""
    content = zipped({"a.npy": npy(np.zeros(2**20))})
    place = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry = content[place:end]
    entries = b"".join(entry.replace(b"a.npy", f"{i:01x}.npy".encode()) for i in range(16))
    tail = bytearray(content[end:])
    tail[8:12] = (16).to_bytes(2, "little") * 2
    tail[12:16] = len(entries).to_bytes(4, "little")
    return content[:place] + entries + bytes(tail)


def torch_saved(canary):
    stream = io.BytesIO()
    torch.save({"weights": Payload(canary)}, stream)
    return stream.getvalue()


def folder(build):
    """A folder as imitation writes them."""

    def make(run, canary):
        path = run.parent / "folder"
        path.mkdir()
        (path / "dataset_info.json").write_text("{}")
        (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        build(path, canary)
        return lambda: load_demonstrations(path)

    return make


def write_table(path, columns, metadata=None):
    table = pa.table(columns)
    if metadata is not None:
        table = table.cast(pa.schema([field.with_metadata(metadata) for field in table.schema]))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


COLUMNS = {"obs": [[[0.0], [1.0], [2.0]]], "acts": [[0, 1]], "rews": [[1.0, 1.0]], "terminal": [True]}


def pickled_type(path, canary):
    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(canary)),
    }
    write_table(path / "data.arrow", {**COLUMNS, "infos": [["{}"] * 2]}, extension)


def pickled_infos(path, canary):
    write_table(path / "data.arrow", {**COLUMNS, "infos": [[json.dumps(jsonpickled(canary))] * 2]})


def elsewhere(path, canary):
    write_table(path.parent / "outside.arrow", COLUMNS)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../outside.arrow"}]}))


def cut_table(path, canary):
    write_table(path / "data.arrow", COLUMNS)
    content = (path / "data.arrow").read_bytes()
    (path / "data.arrow").write_bytes(content[: len(content) * 2 // 3])


# --- run directories --------------------------------------------------------------------------------------------------


def record(change):
    """A run whose run.json says something else; going on with it is tried in every way."""

    def make(run, canary):
        data = json.loads((run / "run.json").read_text())
        change(data, canary)
        data["digest"] = digest_of(data["curriculum"])
        (run / "run.json").write_text(json.dumps(data))
        return lambda: in_every_way(run)

    return make


def in_every_way(run):
    """Do with a run what can be done; give back the first refusal, or fail if there was none."""
    refused = []
    for use in (
        lambda: show_run(run, True),
        lambda: load_policy(run),
        lambda: evaluate(run, 1, 0),
        lambda: resume(run),
    ):
        try:
            use()
        except InputError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def first(data):
    return data["curriculum"]["stages"][0]["environment"]


def names(where, value, **kwargs):
    def change(data, canary):
        stage = data["curriculum"]["stages"][0]
        given = {key: str(canary) if text == "CANARY" else text for key, text in kwargs.items()}
        if where == "expert":
            stage["expert"]["source"] = value
        elif where == "held out":
            data["curriculum"]["held_out"] = [{**first(data), "id": value, "kwargs": given}]
        else:
            first(data)[where] = value
            if where == "id":
                first(data)["kwargs"] = given

    return record(change)


def from_file(data, canary):
    data["sources"] = {"evil_file": "evil_file.py"}
    first(data)["id"] = "evil_file:anything"


def text_of(file, content):
    """A file of a run with other content."""

    def make(run, canary):
        (run / file).write_bytes(content(canary) if callable(content) else content)
        return lambda: in_every_way(run)

    return make


def signed(file, content):
    """A checkpoint with other content, and a manifest that is right."""

    def make(run, canary):
        for path in (run / "checkpoints").iterdir():
            (path / file).write_bytes(content(canary) if callable(content) else content)
            files = {name: (path / name).read_bytes() for name in (TENSORS, STATE)}
            (path / MANIFEST).write_bytes(_manifest(files))
        return lambda: resume(run)

    return make


def state(change):
    """A checkpoint whose state says something else."""

    def make(run, canary):
        newest = run / "checkpoints" / checkpoint_names(run / "checkpoints")[-1]
        data = json.loads((newest / STATE).read_text())
        return signed(STATE, json.dumps(change(data)).encode())(run, canary)

    return make


def event(change):
    """A log in which the last stage's end says something else."""

    def make(run, canary):
        lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        end = [line for line in lines if line["type"] == "StageFinished"][-1]
        change(end, run, canary)
        (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return lambda: load_policy(run)

    return make


def link(name, build):
    """A run in which something is a link to what is not the run's."""

    def make(run, canary):
        victim = run.parent / "victim"
        victim.mkdir()
        for number in range(9):
            (victim / str(number)).mkdir()
            (victim / str(number) / "mine").write_text("mine")
        (victim / "file").write_text("mine")
        target = build(victim)
        path = run / name
        if path.is_dir():
            path.rename(run.parent / "aside")
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(target)

        def use():
            try:
                resume(run)
            finally:
                assert (victim / "file").read_text() == "mine"
                assert all((victim / str(number) / "mine").read_text() == "mine" for number in range(9))
                assert len(list(victim.iterdir())) == 10

        return use

    return make


def pipe(name, use):
    def make(run, canary):
        (run / name).unlink()
        os.mkfifo(run / name)
        return lambda: use(run)

    return make


def sparse(name, use):
    def make(run, canary):
        os.truncate(run / name, 2**40)
        return lambda: use(run)

    return make


def policy_link(run, canary):
    outside = run.parent / "outside.safetensors"
    (run / "policies" / "01-easy.safetensors").rename(outside)
    (run / "policies" / "01-easy.safetensors").symlink_to(outside)
    return lambda: load_policy(run)


def change_of(**fields):
    return event(lambda end, run, canary: end.update(fields))


POLICY = "policies/01-easy.safetensors"
DEEP = b"[" * 200_000

CORPUS = {
    # Pickles and what can become one.
    "npz of objects": demonstrations(
        "a.npz",
        lambda c: zipped(
            {
                **{f"{k}.npy": npy(v) for k, v in ARRAYS.items()},
                "rewards.npy": npy(np.array([Payload(c)] * 5, dtype=object)),
            }
        ),
    ),
    "npz that is an array of objects": demonstrations("a.npz", lambda c: npy(np.array([Payload(c)], dtype=object))),
    "npz that is a pickle": demonstrations("a.npz", lambda c: pickle.dumps(Payload(c))),
    "safetensors that is a pickle": demonstrations("a.safetensors", lambda c: pickle.dumps(Payload(c))),
    "pickle": demonstrations("a.pkl", lambda c: pickle.dumps(Payload(c))),
    "safetensors that torch saved": demonstrations("a.safetensors", torch_saved),
    "policy that torch saved": text_of(POLICY, torch_saved),
    "policy that is a pickle": text_of(POLICY, lambda c: pickle.dumps(Payload(c))),
    "run.json that is a pickle": text_of("run.json", lambda c: pickle.dumps(Payload(c))),
    "events that are a pickle": text_of("events.jsonl", lambda c: pickle.dumps(Payload(c)) + b"\n"),
    "checkpoint's tensors are a pickle": signed(TENSORS, lambda c: pickle.dumps(Payload(c))),
    "checkpoint's tensors are of torch": signed(TENSORS, torch_saved),
    "checkpoint's state is a pickle": signed(STATE, lambda c: pickle.dumps(Payload(c))),
    "checkpoint's state is jsonpickled": state(lambda data: {**data, "learner": jsonpickled("x")}),
    "run.json is jsonpickled": text_of("run.json", lambda c: json.dumps(jsonpickled(c)).encode()),
    "versions are jsonpickled": record(lambda data, c: data.update(versions=jsonpickled(c))),
    "event is jsonpickled": event(lambda end, run, c: end.update(before=jsonpickled(c))),
    "infos are jsonpickled, and not read": folder(pickled_infos),
    "table's type is pickled, and not looked at": folder(pickled_type),
    # Code in places of names.
    "header is code": demonstrations(
        "a.npz",
        lambda c: npz_with_header(f"{{'descr': open({str(c)!r}, 'w'), 'fortran_order': False, 'shape': (5,), }}"),
    ),
    "header is deep": demonstrations("a.npz", npz_with_header("(" * 9_000)),
    "environment is the system": names("id", "posix:system", command="touch CANARY"),
    "environment is open": names("id", "builtins:open", file="CANARY", mode="w"),
    "environment is reached through our module": names(
        "id", "rlstages_envs.rooms:np.lib.format.os.system", command="x"
    ),
    "environment is gymnasium's maker": names("id", "gymnasium:make", id="evil:Evil-v0"),
    "environment is gymnasium's importer": names(
        "id", "gymnasium.envs.registration:load_env_creator", name="evil:anything"
    ),
    "environment loads a file": names("id", "rlstages.specs.loading:load_curriculum", source="evil.py"),
    "environment is a module's": names("id", "evil:anything"),
    "environment is registered by a module": names("id", "evil:Evil-v0"),
    "environment is in a file of the run": record(from_file),
    "wrapper is a module's": names("wrappers", ["evil:anything"]),
    "success is a module's": names("success", "evil:anything"),
    "expert is a module's": names("expert", "evil:anything"),
    "held-out environment is a module's": names("held out", "evil:anything"),
    # Out of the directory.
    "policy is above": change_of(policy="../outside.safetensors"),
    "policy is anywhere": change_of(policy="/etc/passwd"),
    "policy has a zero": change_of(policy="policies/\0"),
    "policy is a number": change_of(policy=3),
    "policy is a link": policy_link,
    "table is above": folder(elsewhere),
    "checkpoints are a link": link("checkpoints", lambda victim: victim),
    "policies are a link": link("policies", lambda victim: victim),
    "log is a link": link("events.jsonl", lambda victim: victim / "file"),
    "lock is a link": link("lock", lambda victim: victim / "file"),
    "record is a device": link("run.json", lambda victim: "/dev/zero"),
    # Never-ending.
    "log is a pipe": pipe("events.jsonl", in_every_way),
    "record is a pipe": pipe("run.json", in_every_way),
    "policy is a pipe": pipe(POLICY, load_policy),
    "policy is huge": sparse(POLICY, load_policy),
    "record is huge": sparse("run.json", in_every_way),
    "log is one huge line": sparse("events.jsonl", in_every_way),
    "record is deep": text_of("run.json", DEEP),
    "log is deep": text_of("events.jsonl", DEEP + b"\n"),
    "network is huge": record(lambda data, c: data["curriculum"]["agent"].update(network=[10**9, 10**9])),
    "copies are many": record(lambda data, c: data["curriculum"]["agent"].update(n_envs=10**12)),
    "observations are huge": record(lambda data, c: data["spaces"]["observation"].update(shape=[10**12])),
    "actions are many": record(
        lambda data, c: data["spaces"].update(action={"kind": "Discrete", "n": 10**12, "start": 0})
    ),
    "type is of objects": record(lambda data, c: data["spaces"]["observation"].update(dtype="O")),
    "number is long": text_of("run.json", b'{"version": ' + b"9" * 5_000_000 + b"}"),
    "bomb": demonstrations("a.npz", zipped({"rewards.npy": npy(np.zeros(2**24))})),
    "overlapping bomb": demonstrations("a.npz", overlapping),
    "empty arrays": demonstrations(
        "a.safetensors",
        header({str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}),
    ),
    "shapes that overflow": demonstrations(
        "a.safetensors", header({"lengths": {"dtype": "I64", "shape": [2**40, 2**40], "data_offsets": [0, 0]}})
    ),
    "header of exabytes": demonstrations("a.safetensors", (2**63).to_bytes(8, "little") + b"{}"),
    "table is cut": folder(cut_table),
    # Two readings of one file.
    "key twice in a header": demonstrations(
        "a.safetensors",
        header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
    ),
    "key twice in the record": text_of("run.json", b'{"version": 1, "version": 1}'),
    "numbers that are none": text_of("run.json", b'{"version": NaN}'),
    "array twice": demonstrations(
        "a.npz", lambda c: zipped({"a.npy": npy(np.zeros(1))})[:0] + overlapping(c).replace(b"1.npy", b"2.npy")
    ),
    # Whole, and not of this run.
    "state is a list": state(lambda data: [data]),
    "state is empty": state(lambda data: {}),
    "state of another stage": state(lambda data: {**data, "stage": 99, "runner": {}}),
    "state without weights": state(lambda data: {**data, "learner": {**data["learner"], "policy": {}}}),
    "state counts backwards": state(lambda data: {**data, "events_bytes": -5}),
    "arrays of nothing": signed(TENSORS, to_safetensors({"a": np.zeros(1)})),
    "stage out of order": event(lambda end, run, c: end.update(stage_index="first")),
    "steps are words": event(lambda end, run, c: end.update(stage_steps="many")),
}
# What is read all the same, because the danger in it is passed over.
READ = {"infos are jsonpickled, and not read", "table's type is pickled, and not looked at"}
