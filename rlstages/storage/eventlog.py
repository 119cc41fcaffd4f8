"""The event log of a run that this process owns: a line is added whole or not at all, and can be cut back."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import cast

from rlstages.storage.checkpoints import DiskFault, reason, write_all

FILE = "events.jsonl"


class EventLog:
    """Adds lines to `events.jsonl`.

    Args:
        directory: Directory of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._handle: int | None = None
        self._whole = 0

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, line: bytes) -> None:
        """Add a line, without its end, or nothing.

        Raises:
            DiskFault: If it could not be written.
        """
        try:
            if self._handle is None:
                self._open()
            elif os.fstat(self._handle).st_size != self._whole:
                # What an append that failed left behind, if it could not be cut off then.
                os.ftruncate(self._handle, self._whole)
            write_all(cast(int, self._handle), line + b"\n")
        except OSError as error:
            with suppress(OSError):
                if self._handle is not None:
                    os.ftruncate(self._handle, self._whole)
            raise DiskFault(f"{self.path} cannot be written: {reason(error)}.", where=self.path) from error
        self._whole += len(line) + 1

    def _open(self) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            self._whole = os.fstat(handle).st_size
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def sync(self) -> None:
        """Wait until all lines are on disk.

        Raises:
            DiskFault: If the disk does not confirm it.
        """
        try:
            if self._handle is not None:
                os.fsync(self._handle)
        except OSError as error:
            raise DiskFault(f"{self.path} cannot be saved: {reason(error)}.", where=self.path) from error

    def cut(self, size: int) -> None:
        """Drop what lies after `size` bytes.

        Raises:
            DiskFault: If it could not be dropped.
        """
        self.close()
        try:
            if self.size > size:
                os.truncate(self.path, size)
        except OSError as error:
            raise DiskFault(f"{self.path} cannot be written: {reason(error)}.", where=self.path) from error

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)
