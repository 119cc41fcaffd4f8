"""Everything a run leaves on disk, and the lock that makes one process its owner.

```
runs/rooms-s0/
  run.json           what is run: curriculum, seed, id, versions, spaces
  events.jsonl       what happened, a line an event
  checkpoints/       the newest few, and the end of every stage under policies/
  policies/          the policy at the end of every stage
  demonstrations/    what was cloned
  wandb/  tensorboard/
```
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib import metadata
from io import BufferedWriter
from pathlib import Path
from typing import Any, cast

from rlstages.checkpoints import (
    DamagedCheckpoint,
    checkpoint_names,
    prune,
    read_checkpoint,
    replace_durably,
    sha256,
    sync_directory,
    write_checkpoint,
)
from rlstages.curriculum import Curriculum
from rlstages.errors import InputError, require
from rlstages.events import Event
from rlstages.places import absolute_from_run, relative_to_run
from rlstages.references import add_sources, modules_named, sources
from rlstages.serialization import from_data, loads, to_data

VERSION = 1
KEPT_CHECKPOINTS = 3
FIRST_CHECKPOINT = "00000001"


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` says.

    Attributes:
        curriculum: What is run; in the file, absolute paths in it start from the run directory.
        seed: Of the run.
        run_id: Of the run everywhere, Weights & Biases included.
        versions: Of Python and the packages that matter, when the run was made.
        spaces: Observation and action space as JSON data.
        sources: Files that the curriculum's functions come from: module name to path, relative to the run directory.
        digests: SHA-256 of those files that the curriculum's own functions come from, by module name.
        conditions: What decides the last bits of its results besides the versions.
        initial: The run whose final policy this one starts from, as the user named it, or `None`.
    """

    curriculum: Curriculum
    seed: int
    run_id: str
    versions: Mapping[str, str]
    spaces: Mapping[str, Any]
    sources: Mapping[str, str]
    digests: Mapping[str, str]
    conditions: Mapping[str, Any]
    initial: str | None = None


class RunDirectory:
    """A run directory that this process owns until `close`.

    Args:
        path: An existing run directory.

    Raises:
        InputError: If it is not a run directory, or another process owns it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = read_record(path)
        self._lock: int | None = _lock(path)
        self._events: BufferedWriter | None = None

    @classmethod
    def create(cls, path: Path, record: RunRecord, state: Mapping[str, Any]) -> RunDirectory:
        """Make a new run directory.

        Args:
            path: Where.
            record: What is run.
            state: The first checkpoint. It is there before the record, which makes the directory a run: from then on
                the run can be resumed.

        Raises:
            InputError: If the path is taken or cannot be written.
        """
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise InputError(f"{path} is there already; give another --out, or go on with it: resume {path}.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be made: {error.strerror}; give another --out.") from None
        try:
            files = {name: os.path.relpath(file, path.resolve()) for name, file in sources().items()}
            named = modules_named(to_data(record.curriculum)) & set(files)
            digests = {name: sha256(sources()[name].read_bytes()) for name in sorted(named)}
            write_checkpoint(path / "checkpoints", FIRST_CHECKPOINT, {**state, "events_bytes": 0})
            write_record(path, replace(record, sources=files, digests=digests))
            return cls(path)
        except BaseException as error:
            shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, OSError):
                raise InputError(f"{path} cannot be written: {error.strerror}; give another --out.") from error
            raise

    def close(self) -> None:
        """Close the event log and give up the lock; a second call does nothing."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            if self._events:
                self._events.close()
        finally:
            del _OWNED[lock]
            os.close(lock)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, event: Event) -> None:
        """Add a line to the event log."""
        if self._events is None:
            self._events = (self.path / "events.jsonl").open("ab")
        self._events.write(event.to_json().encode(errors="backslashreplace") + b"\n")
        self._events.flush()

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint that remembers how long the event log was, and drop the oldest."""
        if self._events:
            os.fsync(self._events.fileno())
            sync_directory(self.path)
        write_checkpoint(self.path / "checkpoints", name, {**state, "events_bytes": self._events_bytes()})
        prune(self.path / "checkpoints", KEPT_CHECKPOINTS)

    def restore(self) -> tuple[str, dict[str, Any], list[str]]:
        """Read the newest whole checkpoint, cut the event log back to it and drop the damaged ones after it.

        Returns:
            Its name, its state, and a sentence for each damaged one that was passed over.

        Raises:
            InputError: If there is none that is whole.
        """
        checkpoints = self.path / "checkpoints"
        damaged: dict[str, str] = {}
        for name in reversed(checkpoint_names(checkpoints)):
            try:
                state = read_checkpoint(checkpoints / name)
            except DamagedCheckpoint as error:
                damaged[name] = f"Checkpoint {error} The one before it is used."
                continue
            self._cut_events(int(state["events_bytes"]))
            for newer in damaged:
                # The run will write checkpoints of these names again.
                shutil.rmtree(checkpoints / newer)
            return name, state, list(damaged.values())
        why = "all of its checkpoints are damaged" if damaged else "it has no checkpoint"
        raise InputError(f"{self.path}: {why}; train again, with another --out.")

    def _events_bytes(self) -> int:
        file = self.path / "events.jsonl"
        return file.stat().st_size if file.exists() else 0

    def _cut_events(self, size: int) -> None:
        if self._events_bytes() > size:
            os.truncate(self.path / "events.jsonl", size)


def write_record(path: Path, record: RunRecord) -> None:
    """Write `run.json`, in one step."""
    content = {"version": VERSION, "digest": digest_from(path, record.curriculum)}
    content |= {f.name: to_data(getattr(record, f.name)) for f in fields(record)}
    content["curriculum"] = relative_to_run(content["curriculum"], path)
    replace_durably(path / "run.json", json.dumps(content, indent=1, allow_nan=False).encode())


def update_curriculum(run: RunDirectory, curriculum: Curriculum) -> None:
    """Change what an owned run does from here on."""
    run.record = replace(run.record, curriculum=curriculum)
    write_record(run.path, run.record)


def read_record(path: Path) -> RunRecord:
    """Read `run.json` without owning the run.

    Raises:
        InputError: If the path is not a run directory.
    """
    file = path / "run.json"
    require(file.is_file(), f"{path} is not a run directory: it has no run.json.")
    try:
        data = loads(file.read_bytes())
        version = data["version"]
        require(version == VERSION, f"it is of version {version!r}, and this rlstages reads version {VERSION}.")
        curriculum = from_data(absolute_from_run(data["curriculum"], path))
        require(isinstance(curriculum, Curriculum), "it does not hold a curriculum.")
        record = RunRecord(
            curriculum=cast(Curriculum, curriculum),
            seed=data["seed"],
            run_id=data["run_id"],
            versions=data["versions"],
            spaces=data["spaces"],
            sources=data["sources"],
            digests=data["digests"],
            conditions=data["conditions"],
            initial=data["initial"],
        )
        add_sources({name: path / relative for name, relative in record.sources.items()})
        return record
    except InputError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{file} is damaged: {type(error).__name__} {error}.") from error


def digest_from(path: Path, curriculum: Curriculum) -> str:
    """Return the digest of a curriculum as `run.json` holds it, which stays when files move together with the run."""
    return cast(Curriculum, from_data(relative_to_run(to_data(curriculum), path))).digest


def recorded_digest(path: Path) -> str | None:
    """Return the digest of the curriculum as `run.json` gives it."""
    digest = loads((path / "run.json").read_bytes()).get("digest")
    return str(digest) if digest else None


def read_events(path: Path) -> Iterator[Event]:
    """Read the events of a run, oldest first; a last line that a crash cut short is left out.

    Raises:
        InputError: If a line is damaged.
    """
    file = path / "events.jsonl"
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Event.from_data(loads(line))
            except (InputError, TypeError, ValueError) as error:
                raise InputError(f"{file}, line {number} cannot be read: {error}") from error


def new_record(
    curriculum: Curriculum,
    seed: int,
    spaces: Mapping[str, Any],
    conditions: Mapping[str, Any],
    initial: str | None = None,
) -> RunRecord:
    """Return the record of a new run, with an id of its own."""
    return RunRecord(curriculum, seed, secrets.token_hex(4), versions(), spaces, {}, {}, conditions, initial)


def free_path(base: Path, curriculum: Curriculum, seed: int) -> Path:
    """Return a path for a new run in `base` that is not taken."""
    stem = f"{slug(curriculum.name)}-s{seed}"
    number, path = 1, base / stem
    while path.exists():
        number += 1
        path = base / f"{stem}-{number}"
    return path


def slug(name: str) -> str:
    """Return a name as it can stand in a file name, at most 100 bytes long."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name.lower()).strip(".-")
    return plain.encode()[:100].decode(errors="ignore") or "unnamed"


def versions() -> dict[str, str]:
    """Return the versions that decide what a run computes."""
    packages = ["rlstages", "gymnasium", "stable-baselines3", "torch", "numpy", "imitation", "wandb"]
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


_OWNED: dict[int, Path] = {}


def _lock(path: Path) -> int:
    # The system's lock keeps other processes out, but not a second owner in this one.
    require(path.resolve() not in _OWNED.values(), f"{path} is in use in this process already; close it first.")
    try:
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise InputError(f"{path} belongs to the running process {holder}; wait for it, or stop it.") from None
    except OSError as error:
        os.close(handle)
        raise InputError(f"{path} cannot be locked: {error.strerror}; put it on another disk.") from None
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    _OWNED[handle] = path.resolve()
    return handle
