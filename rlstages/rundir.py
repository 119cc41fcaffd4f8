"""Everything a run leaves on disk, and the lock that makes one process its owner.

```
runs/rooms-s0/
  run.json           what is run: curriculum, seed, id, versions, spaces
  events.jsonl       what happened, a line an event
  checkpoints/       the newest few, and with names that end in -end those at the end of every stage
  policies/          the policy at the end of every stage
  demonstrations/    what was cloned
  wandb/  tensorboard/
```
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from rlstages import eventlog
from rlstages.checkpoints import (
    DamagedCheckpoint,
    DiskFault,
    checkpoint_names,
    delete,
    prune,
    read_checkpoint,
    reason,
    replace_durably,
    sha256,
    sweep,
    sync_directory,
    write_checkpoint,
)
from rlstages.curriculum import Curriculum
from rlstages.errors import InputError, require, require_int
from rlstages.eventlog import EventLog
from rlstages.events import DemonstrationsReady, Event, StageFinished
from rlstages.lock import lock, unlock
from rlstages.places import absolute_from_run, relative_to_run
from rlstages.references import modules_named, sources
from rlstages.serialization import from_data, loads, to_data
from rlstages.untrusted import inside, open_regular, read_bytes, require_no_links

VERSION = 1
RECORD, EVENTS, CHECKPOINTS = "run.json", eventlog.FILE, "checkpoints"
KEPT_CHECKPOINTS, FIRST_CHECKPOINT, END = 3, "00000001", "-end"
MAX_LINE, MAX_LOG = 2**22, 2**34


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
        require((path / RECORD).is_file(), f"{path} is not a run directory: it has no {RECORD}.")
        self._begin(path, lock(path))

    def _begin(self, path: Path, held: int) -> None:
        self.path = path
        self._lock: int | None = held
        self._log = EventLog(path)
        try:
            require_no_links(path)
            self.record = read_record(path)
        except BaseException:
            self.close()
            raise

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
            held = lock(path)
            try:
                files = {name: os.path.relpath(file, path.resolve()) for name, file in sources().items()}
                named = modules_named(to_data(record.curriculum)) & set(files)
                digests = {name: sha256(sources()[name].read_bytes()) for name in sorted(named)}
                write_checkpoint(path / CHECKPOINTS, FIRST_CHECKPOINT, {**state, "events_bytes": 0})
                write_record(path, replace(record, sources=files, digests=digests))
                sync_directory(path.parent)
            except BaseException:
                unlock(held)
                raise
            run = cls.__new__(cls)
            run._begin(path, held)
            return run
        except BaseException as error:
            shutil.rmtree(path, ignore_errors=True)
            cause = error.__cause__ if isinstance(error, DiskFault) else error
            if isinstance(cause, OSError):
                raise InputError(f"{path} cannot be written: {reason(cause)}; give another --out.") from error
            raise

    def close(self) -> None:
        """Close the event log and give up the lock; a second call does nothing."""
        if self._lock is None:
            return
        held, self._lock = self._lock, None
        try:
            self._log.close()
        finally:
            unlock(held)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, event: Event) -> None:
        """Add a line to the event log, or nothing.

        Raises:
            DiskFault: If it could not be written.
        """
        self._log.append(event.to_json().encode(errors="backslashreplace"))

    def save(self, name: str, state: Mapping[str, Any], end: bool = False) -> None:
        """Write a checkpoint that remembers how long the event log was, and drop the oldest.

        Args:
            name: Of the checkpoint; names sort by age.
            state: What it holds.
            end: Whether it is the end of a stage, which is kept for good; its name then ends in `-end`.

        Raises:
            DiskFault: If it could not be written; the ones before it are as they were.
        """
        name += END if end else ""
        checkpoints = self.path / CHECKPOINTS
        try:
            self._log.sync()
            write_checkpoint(checkpoints, name, {**state, "events_bytes": self._log.size})
        except OSError as error:
            raise DiskFault(f"Checkpoint {name} could not be saved: {reason(error)}.") from error
        with suppress(OSError):
            # What cannot be deleted now is deleted after the next save.
            ends = [name for name in checkpoint_names(checkpoints) if name.endswith(END)]
            prune(checkpoints, KEPT_CHECKPOINTS, ends)

    def restore(self) -> tuple[str, dict[str, Any], list[str]]:
        """Read the newest whole checkpoint, cut the event log back to it and drop the damaged ones after it.

        Returns:
            Its name, its state, and a sentence for each damaged one that was passed over.

        Raises:
            InputError: If there is none that is whole.
        """
        checkpoints = self.path / CHECKPOINTS
        for directory in (self.path, checkpoints, self.path / "policies", self.path / "demonstrations"):
            sweep(directory)
        damaged: dict[str, str] = {}
        for name in reversed(checkpoint_names(checkpoints)):
            try:
                state = read_checkpoint(checkpoints / name)
                self._require_events(name, state.get("events_bytes"))
            except DamagedCheckpoint as error:
                damaged[name] = f"Checkpoint {error} The one before it is used."
                continue
            self._log.cut(state["events_bytes"])
            for newer in damaged:
                # The run will write checkpoints of these names again.
                delete(checkpoints / newer)
            return name, state, list(damaged.values())
        why = "all of its checkpoints are damaged" if damaged else "it has no checkpoint"
        raise InputError(f"{self.path}: {why}; train again, with another --out.")

    def _require_events(self, name: str, size: object) -> None:
        """Refuse a checkpoint whose events are not there any more."""
        if not isinstance(size, int) or not 0 <= size <= self._log.size:
            raise DamagedCheckpoint(f"{name}: {EVENTS} has lost events that it counts on.")


def write_record(path: Path, record: RunRecord) -> None:
    """Write `run.json`, in one step."""
    content = {"version": VERSION, "digest": digest_from(path, record.curriculum)}
    content |= {f.name: to_data(getattr(record, f.name)) for f in fields(record)}
    content["curriculum"] = relative_to_run(content["curriculum"], path)
    replace_durably(path / RECORD, json.dumps(content, indent=1, allow_nan=False).encode())


def update_curriculum(run: RunDirectory, curriculum: Curriculum) -> None:
    """Change what an owned run does from here on."""
    run.record = replace(run.record, curriculum=curriculum)
    write_record(run.path, run.record)


def read_record(path: Path) -> RunRecord:
    """Read `run.json` without owning the run.

    Raises:
        InputError: If the path is not a run directory.
    """
    file = path / RECORD
    require(file.is_file(), f"{path} is not a run directory: it has no {RECORD}.")
    try:
        data = loads(read_bytes(file))
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
        _check(record)
        return record
    except InputError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{file} is damaged: {type(error).__name__} {error}.") from error


def _check(record: RunRecord) -> None:
    require_int("it", "seed", record.seed, least=0)
    plain = isinstance(record.run_id, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", record.run_id)
    require(bool(plain), f"its run_id is {record.run_id!r}.")
    for name in ("versions", "sources", "digests"):
        texts = getattr(record, name)
        whole = isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())
        require(whole, f"its {name} are damaged.")
    require("rlstages" in record.versions, "its versions are damaged.")
    require(set(record.digests) <= set(record.sources), "its digests are damaged.")
    require(isinstance(record.conditions, dict), "its conditions are damaged.")
    require(isinstance(record.spaces, dict), "its spaces are damaged.")
    require(record.initial is None or isinstance(record.initial, str), "its initial run is damaged.")


def digest_from(path: Path, curriculum: Curriculum) -> str:
    """Return the digest of a curriculum as `run.json` holds it, which stays when files move together with the run."""
    return cast(Curriculum, from_data(relative_to_run(to_data(curriculum), path))).digest


def recorded_digest(path: Path) -> str | None:
    """Return the digest of the curriculum as `run.json` gives it."""
    digest = loads(read_bytes(path / RECORD)).get("digest")
    return str(digest) if digest else None


def read_events(path: Path) -> Iterator[Event]:
    """Read the events of a run, oldest first; a last line that a crash cut short is left out.

    Raises:
        InputError: If a line is damaged, or names a file outside of the run directory.
    """
    file = path / EVENTS
    if not file.exists():
        return
    with open_regular(file, MAX_LOG) as lines:
        number = 0
        while line := lines.readline(MAX_LINE):
            number += 1
            if not line.endswith(b"\n"):
                require(len(line) < MAX_LINE, f"{file}, line {number} is longer than {MAX_LINE:,} bytes.")
                return
            try:
                event = Event.from_data(loads(line))
                if isinstance(event.payload, DemonstrationsReady):
                    inside(path, event.payload.file)
                elif isinstance(event.payload, StageFinished):
                    inside(path, event.payload.policy)
            except (InputError, TypeError, ValueError) as error:
                raise InputError(f"{file}, line {number} cannot be read: {error}") from error
            yield event


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
