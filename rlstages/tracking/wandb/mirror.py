"""The process beside a training that copies its event log to W&B: whatever W&B does, the training does not feel it.

Its working directory is the run directory. It follows `events.jsonl` there, so that nothing has to be handed over and
nothing queues up. It says what a person should know in lines of JSON: `{"mode": ..., "url": ...}` once W&B has the run,
`{"warning": ...}`, `{"failure": ...}` when W&B will not have it, and at the end `{"points": ...}`. It stops when it is
told in how many seconds it has to be done, or when whoever started it is gone.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, cast

from rlstages.errors import InputError, reason_of
from rlstages.events import Event
from rlstages.events.privacy import without_paths
from rlstages.specs.serialization import loads
from rlstages.storage.record import RunRecord, read_record
from rlstages.tracking.wandb.run import WandbRun
from rlstages.tracking.wandb.session import (
    FOLDER,
    redirect_wandb,
    remove_logs,
    remove_runs,
    remove_uploaded,
    tracking_mode,
)
from rlstages.tracking.wandb.tracker import keep_place

ORPHAN_SECONDS = 3.0
_LOOK_SECONDS = 0.25
_LOCK_SECONDS = 10.0

_Mode = Literal["online", "offline"]
Say = Callable[..., None]

# A `.wandb` file is a LevelDB log behind a header: blocks of 32 KiB, in them pieces of (crc32, length, kind, data). A
# record is one piece, or several; it never leaves less than a piece's head at the end of a block.
_HEADER, _BLOCK = 7, 32_768
_FULL, _FIRST = 1, 2


def follow(path: Path, stopped: threading.Event) -> Iterator[Event]:
    """Read an event log while it grows; once stopped, read to its end. A last line that is not whole is left out."""
    pending = b""
    with path.open("rb") as file:
        while True:
            # Looked at first: what was written before the order to stop is then read for certain.
            ends = stopped.is_set()
            pending += file.readline()
            if pending.endswith(b"\n"):
                yield Event.from_data(loads(pending))
                pending = b""
            elif ends:
                return
            else:
                stopped.wait(_LOOK_SECONDS)


def copy(run: WandbRun, mode: _Mode, stopped: threading.Event, say: Say) -> None:
    """Copy the event log to W&B; what W&B has already, from an earlier session, is not sent again."""
    for event in follow(Path("events.jsonl"), stopped):
        run(event)
    run.finish()
    import wandb

    # Only then are all files written.
    wandb.teardown()
    if mode == "offline" and not all(map(is_whole, FOLDER.glob("offline-run-*/*.wandb"))):
        raise OSError("its file has no end; is the disk full?")
    say(points=run.points)


def main() -> None:
    """Take what is wanted from the command line, as JSON.

    `mode`; `project`; `init_seconds`, which the server may take to answer; `here`, the training's working directory;
    whether to measure the `system`; the files of `code` to send.
    """
    wanted = json.loads(sys.argv[1])
    mode: _Mode = "online" if wanted["mode"] == "online" else "offline"
    orders, words = os.dup(0), os.dup(1)
    # Nothing that W&B or its service prints, and no question, reaches the terminal.
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, flags), number)
    # A scheduler may tell all processes to stop; the training decides when this one does. W&B's service inherits that.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)

    def say(**message: object) -> None:
        try:
            os.write(words, json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def opened(url: str | None, folder: str | None) -> None:
        keep_place(url, folder)
        say(mode=mode, url=url)

    stopped = threading.Event()
    threading.Thread(target=_watch, args=(orders, os.getppid(), stopped), daemon=True).start()
    code = 1
    try:
        record = _record()
        redirect_wandb(None if record is None else record.run_id)
        mode = cast(_Mode, tracking_mode(wanted["mode"]))
        with (FOLDER / "lock").open("w") as lock:
            _wait_for(lock.fileno())
            remove_runs()
            options = {name: wanted[name] for name in ("project", "init_seconds", "here", "system", "code")}
            run = WandbRun(mode, record, opened, lambda sentence: say(warning=sentence), **options)
            copy(run, mode, stopped, say)
        code = 0
    except Exception as error:
        reason = without_paths(reason_of(error))
        say(failure=f"W&B {'does not take this run' if mode == 'online' else 'cannot write this run'} ({reason})")
    _leave(code)


def _record() -> RunRecord | None:
    """Return what `run.json` says; a log can be followed without it."""
    try:
        return read_record(Path())
    except InputError:
        return None


def _wait_for(lock: int) -> None:
    """Wait for the mirror of a session that was killed, which ends within seconds."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _watch(orders: int, parent: int, stopped: threading.Event) -> None:
    """Wait for the order to be done in some seconds, or for whoever gives orders to die; then end in time."""
    deadline, alive = math.inf, True
    while time.monotonic() < deadline:
        if alive and select.select([orders], [], [], _LOOK_SECONDS)[0]:
            order = os.read(orders, 64)
            alive = bool(order)
            if order:
                deadline = time.monotonic() + float(order)
        elif not alive:
            time.sleep(0.05)
        if alive and os.getppid() != parent:
            alive = False
        if not alive:
            deadline = min(deadline, time.monotonic() + ORPHAN_SECONDS)
        if deadline < math.inf:
            stopped.set()
    _leave(1)


def _leave(code: int) -> None:
    """End now, without the hooks of W&B that wait for its service; the service ends when this process has."""
    remove_uploaded()
    remove_logs()
    os._exit(code)


_HEAD = struct.Struct("<IHB")


def is_whole(path: Path) -> bool:
    """Return whether a file ends with the record that a finished run writes last."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data, at, record = path.read_bytes(), _HEADER, b""
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEAD.size:
            at += left
            continue
        if at + _HEAD.size > len(data):
            return False
        _, length, kind = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        piece = data[at - length : at]
        record = piece if kind in (_FULL, _FIRST) else record + piece
    if at > len(data) or not record:
        return False
    return bool(Record.FromString(record).WhichOneof("record_type") == "exit")
