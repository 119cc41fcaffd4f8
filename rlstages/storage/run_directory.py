"""Run directories: the files of a run, and the lock that makes one process its owner.

```
runs/rooms-s0/
  run.json           what is run: curriculum, seed, id, versions, spaces
  events.jsonl       what happened, a line an event
  checkpoints/       the newest few, and with names that end in -end those at the end of every stage
  policies/          the policy at the end of every stage
  demonstrations/    what was cloned, and what was taken over from the run that this one started from
  wandb/  tensorboard/
```
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlstages.errors import InputError, require, require_sound
from rlstages.events import DemonstrationsReady, Event, StageCollapsed, StageFinished
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.references import files_behind, sources
from rlstages.specs.serialization import loads
from rlstages.storage import eventlog
from rlstages.storage.checkpoints import (
    DamagedCheckpoint,
    DiskFault,
    checkpoint_names,
    clear_leftovers,
    delete,
    prune,
    read_checkpoint,
    reason,
    replace_durably,
    sha256,
    sync_directory,
    write_checkpoint,
)
from rlstages.storage.eventlog import EventLog
from rlstages.storage.lock import lock, unlock
from rlstages.storage.record import RECORD, RunRecord, modules_behind, read_record, shell_path, write_record
from rlstages.storage.untrusted import inside, open_regular, require_no_links

EVENTS, CHECKPOINTS = eventlog.FILE, "checkpoints"
KEPT_CHECKPOINTS, FIRST_CHECKPOINT, END = 3, "00000001", "-end"
INHERITED = "demonstrations/inherited.safetensors"
MAX_LINE, MAX_LOG = 2**22, 2**34


class RunDirectory:
    """A run directory that this process owns until `close`.

    Args:
        path: Existing run directory.

    Raises:
        InputError: If it is not a run directory, or another process owns it.
    """

    def __init__(self, path: Path) -> None:
        require((path / RECORD).is_file(), f"{path} is not a run directory: it has no {RECORD}.", "file-missing", path)
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
    def create(
        cls, path: Path, record: RunRecord, state: Mapping[str, Any], demonstrations: bytes | None = None
    ) -> RunDirectory:
        """Make a new run directory.

        Args:
            path: Path of the new directory.
            record: What is run.
            state: First checkpoint. It is there before the record, which makes the directory a run: from then on
                the run can be resumed.
            demonstrations: File of them to begin with.

        Raises:
            InputError: If the path is taken or cannot be written.
        """
        refuse_taken(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{path} cannot be made: {error.strerror}; give another --out.", "file-unusable", path
            ) from None
        try:
            held = lock(path)
            try:
                behind = files_behind(modules_behind(record.curriculum))
                files = {name: os.path.relpath(file, path.resolve()) for name, file in sources().items()}
                digests = {name: sha256(file.read_bytes()) for name, file in sorted(behind.items())}
                write_checkpoint(path / CHECKPOINTS, FIRST_CHECKPOINT, {**state, "events_bytes": 0})
                if demonstrations is not None:
                    (path / INHERITED).parent.mkdir()
                    replace_durably(path / INHERITED, demonstrations)
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
                raise InputError(
                    f"{path} cannot be written: {reason(cause)}; give another --out.", "file-unusable", path
                ) from error
            raise

    def close(self) -> None:
        """Close the event log, and release the lock; a second call does nothing."""
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
        """Append an event to the log, completely or not at all.

        Raises:
            DiskFault: If it could not be written.
        """
        self._log.append(event.to_json().encode(errors="backslashreplace"))

    def save(self, name: str, state: Mapping[str, Any], end: bool = False) -> None:
        """Write a checkpoint that records the length of the event log, and drop the oldest.

        Args:
            name: Name of the checkpoint; names sort by age.
            state: State of the run.
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
            raise DiskFault(
                f"Checkpoint {name} could not be saved: {reason(error)}.", where=f"checkpoint {name}"
            ) from error
        with suppress(OSError):
            # If a deletion fails now, it is repeated after the next save.
            ends = [name for name in checkpoint_names(checkpoints) if name.endswith(END)]
            prune(checkpoints, KEPT_CHECKPOINTS, ends)

    def restore(self) -> tuple[str, dict[str, Any], list[str]]:
        """Read the newest complete checkpoint, cut the event log back to it, and drop damaged later ones.

        Returns:
            Its name, its state, and a sentence for each damaged one that was passed over.

        Raises:
            InputError: If there is none that is whole.
        """
        checkpoints = self.path / CHECKPOINTS
        for directory in (self.path, checkpoints, self.path / "policies", self.path / "demonstrations"):
            clear_leftovers(directory)
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
                # Drop them, because the run will write checkpoints of these names again.
                delete(checkpoints / newer)
            return name, state, list(damaged.values())
        why = "all of its checkpoints are damaged" if damaged else "it has no checkpoint"
        raise InputError(f"{self.path}: {why}; train again, with another --out.", "file-damaged", self.path)

    @property
    def is_ahead(self) -> bool:
        """Whether the event log has gone on since the newest checkpoint; of none, or of a damaged one, it has not."""
        names = checkpoint_names(self.path / CHECKPOINTS)
        size = None
        with suppress(DamagedCheckpoint):
            size = read_checkpoint(self.path / CHECKPOINTS / names[-1]).get("events_bytes") if names else None
        return isinstance(size, int) and size < self._log.size

    def _require_events(self, name: str, size: object) -> None:
        """Refuse a checkpoint whose events are missing in the log."""
        if not isinstance(size, int) or not 0 <= size <= self._log.size:
            raise DamagedCheckpoint(f"{name}: {EVENTS} has lost events that it counts on.")


def refuse_taken(path: Path) -> None:
    """Refuse a path for a new run that exists already.

    Raises:
        InputError: Saying how to go on with a run that is there.
    """
    sentence = (
        f"{path} is there already; give another --out, or go on with it: rlstages resume {shell_path(path)} "
        f"(in Python out=..., and rlstages.resume({str(path)!r}))."
    )
    require(not os.path.lexists(path), sentence, "out-taken", path)


def clear_unborn(path: Path) -> None:
    """Remove an incomplete run directory of a killed process; anything else stays."""
    known = {"lock", CHECKPOINTS}
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else None
    # A folder of demonstrations that stands alone may be anybody's.
    if found is not None and (found <= known or found == {*known, Path(INHERITED).parent.name}):
        shutil.rmtree(path)


def update_curriculum(run: RunDirectory, curriculum: Curriculum) -> None:
    """Replace the curriculum of an owned run."""
    run.record = replace(run.record, curriculum=curriculum)
    write_record(run.path, run.record)


def read_events(path: Path | str) -> Iterator[Event]:
    """Read the events of a run, oldest first; a last line that a crash cut short is left out.

    Raises:
        InputError: If a line is damaged, or names a file outside of the run directory.
    """
    file = Path(path) / EVENTS
    if not file.exists():
        return
    with open_regular(file, MAX_LOG) as lines:
        number = 0
        while line := lines.readline(MAX_LINE):
            number += 1
            if not line.endswith(b"\n"):
                require_sound(len(line) < MAX_LINE, f"{file}, line {number} is longer than {MAX_LINE:,} bytes.", file)
                return
            try:
                event = Event.from_data(loads(line))
                if isinstance(event.payload, DemonstrationsReady):
                    inside(file.parent, event.payload.file)
                elif isinstance(event.payload, (StageFinished, StageCollapsed)):
                    inside(file.parent, event.payload.policy)
            except (InputError, TypeError, ValueError) as error:
                place = f"{file}, line {number}"
                raise InputError(f"{place} cannot be read: {error}", "file-damaged", place) from error
            yield event


def free_path(base: Path, curriculum: Curriculum, seed: int) -> Path:
    """Return a path for a new run in `base` that is not taken."""
    stem = f"{slug(curriculum.name)}-s{seed}"
    number, path = 1, base / stem
    while path.exists():
        number += 1
        path = base / f"{stem}-{number}"
    return path


def slug(name: str, most: int | None = 100) -> str:
    """Return a name in a form for file names, with a maximum length in bytes."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name.lower()).strip(".-")
    return plain.encode()[:most].decode(errors="ignore") or "unnamed"
