"""The lock that makes one process the owner of a directory.

It is the system's record lock (`lockf`): it is freed when its process ends, however that ends, and it is not inherited
by worker processes, as `flock` would be. The file says who holds it, and since when by its time of change.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rlstages.errors import Code, InputError, require

LOCK_FILE = "lock"
_T = TypeVar("_T")
_OWNED: dict[int, tuple[int, int]] = {}


class OwnedElsewhere(InputError):
    """Another process owns the directory."""

    code: Code = "run-busy"


def lock(directory: Path) -> int:
    """Become a directory's owner.

    Returns:
        What `unlock` takes.

    Raises:
        OwnedElsewhere: If another process owns it, which is named.
        InputError: If this one does already, or it cannot be locked.
    """
    path = directory / LOCK_FILE
    # The system's lock keeps other processes out, but not a second owner in this one; and it is lost when this process
    # closes any handle of the file, so this comes before the file is opened.
    sentence = f"{directory} is in use in this process already; close it first."
    require(_identity(path) not in _OWNED.values(), sentence, "run-busy", directory)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error.strerror}.", "file-unusable", directory) from None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except (BlockingIOError, PermissionError):
        holder = _holder(handle)
        os.close(handle)
        raise OwnedElsewhere(f"{directory} belongs to {holder}; wait for it, or stop it.", where=directory) from None
    except OSError as error:
        os.close(handle)
        raise InputError(
            f"{directory} cannot be locked: {error.strerror}; put it on another disk.", "file-unusable", directory
        ) from None
    found = os.fstat(handle)
    _OWNED[handle] = found.st_dev, found.st_ino
    return handle


def unlock(handle: int) -> None:
    """Give up what `lock` returned."""
    del _OWNED[handle]
    with suppress(OSError):
        os.ftruncate(handle, 0)
    os.close(handle)


def patiently(work: Callable[[], _T], seconds: float = 120.0) -> _T:
    """Do what takes a lock, waiting for a process to let go of it: one that was told to end finishes its step first.

    Raises:
        OwnedElsewhere: If it is still held after these seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except OwnedElsewhere:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _holder(handle: int) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.fstat(handle).st_mtime))
    said = os.pread(handle, 32, 0).decode(errors="replace")
    if not said.isdigit():
        return "another process, which has just begun"
    try:
        os.kill(int(said), 0)
    except ProcessLookupError:
        return f"the process {said} of another machine or container, since {since}"
    except OSError:
        pass
    return f"the running process {said}, since {since}"
