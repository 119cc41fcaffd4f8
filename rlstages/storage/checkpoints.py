"""Checkpoints: a directory is either whole, or not there.

Tensors lie in safetensors and everything else in strict JSON, so that loading runs no code. A manifest names every
file's size and SHA-256, and its own. The directory is written under a temporary name, synced, renamed, and its parent
synced: a crash at any point leaves the checkpoint before it untouched.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from rlstages.errors import Code, Fault, InputError, in_short
from rlstages.specs.serialization import loads
from rlstages.storage.untrusted import Tensors, read_bytes

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
MAX_CHECKPOINT = {TENSORS: 2**32, STATE: 2**26, MANIFEST: 2**16}
_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your quota is spent; free some space",
    errno.EROFS: "the disk is read-only; make it writable",
    errno.EACCES: "permission denied; make it writable",
    errno.EPERM: "permission denied; make it writable",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n), or use fewer copies (n_envs)",
    errno.ENFILE: "the system has too many open files",
}
_TENSOR = "$tensor"
_WRITING, _DELETING = ".writing-", ".deleting-"


class DiskFault(Fault):
    """Something could not be written: one sentence names it and says why. What was there before is untouched."""

    code: Code = "file-unusable"


class DamagedCheckpoint(Exception):
    """A checkpoint that is not what was written: one sentence names the file and what is wrong with it."""


def write_checkpoint(directory: Path, name: str, state: Mapping[str, Any]) -> Path:
    """Write a checkpoint, visible under its name only when whole.

    Args:
        directory: Directory of the checkpoints.
        name: Name of the new one; names sort by age.
        state: Nested dictionaries (their keys become strings) and lists of JSON values and NumPy arrays.

    Returns:
        Its path.

    Raises:
        DiskFault: If it could not be written; the checkpoints before it are untouched.
        ValueError: If the state holds something else, such as a number that is not finite.
    """
    tensors: dict[str, np.ndarray] = {}
    tree = _take_tensors(state, "", tensors)
    files = {
        TENSORS: save_tensors(tensors),
        STATE: json.dumps(tree, allow_nan=False).encode(),
    }
    files[MANIFEST] = _manifest(files)
    temporary, final = directory / f"{_WRITING}{name}", directory / name
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        if not directory.is_dir():
            directory.mkdir(parents=True)
            sync_directory(directory.parent)
        os.mkdir(temporary)
        with ThreadPoolExecutor(len(files)) as writers:
            # A file system confirms files that are synced at the same time together, and it is that which takes long.
            list(writers.map(write_durably, [temporary / file for file in files], files.values()))
        sync_directory(temporary)
        os.rename(temporary, final)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DiskFault(
            f"Checkpoint {name} could not be saved: {reason(error)}.", where=f"checkpoint {name}"
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        sync_directory(directory)
    except OSError as error:
        raise DiskFault(
            f"Checkpoint {name} is in its place, but the disk did not confirm it ({reason(error)}), so a power cut may "
            "undo it.",
            "file-unconfirmed",
            f"checkpoint {name}",
        ) from error
    return final


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint back, after checking every byte against the manifest.

    Raises:
        DamagedCheckpoint: If anything is missing, changed or unreadable.
    """
    content = {file: _read(path, file) for file in (MANIFEST, TENSORS, STATE)}
    if _manifest({file: content[file] for file in (TENSORS, STATE)}) != content[MANIFEST]:
        raise DamagedCheckpoint(f"{path.name}: its files do not match its manifest.")
    try:
        arrays = Tensors(BytesIO(content[TENSORS]), len(content[TENSORS]))
        tensors = {name: arrays.read(name) for name in arrays.layouts}
        state = _put_tensors(loads(content[STATE]), tensors)
    except InputError as error:
        raise DamagedCheckpoint(f"{path.name}: {error}") from error
    except (KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{path.name}: {STATE} names the array {error}, which is not there.") from error
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"{path.name}: {STATE} holds no object.")
    return state


def checkpoint_names(directory: Path) -> list[str]:
    """Return the names of the checkpoints in a directory, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))


def prune(directory: Path, keep: int, always: Iterable[str] = ()) -> None:
    """Delete all but the newest `keep` checkpoints, and those that are kept `always`."""
    always = set(always)
    passing = [name for name in checkpoint_names(directory) if name not in always]
    for name in passing[: max(0, len(passing) - keep)]:
        delete(directory / name)


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint, which is gone at once or not at all."""
    doomed = checkpoint.with_name(f"{_DELETING}{checkpoint.name}")
    try:
        os.rename(checkpoint, doomed)
    except OSError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def clear_leftovers(directory: Path) -> None:
    """Delete what writers and deleters that were killed left half-done; only a directory's owner may."""
    for prefix in (_WRITING, _DELETING):
        for leftover in directory.glob(f"{prefix}*"):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write_all(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, content: bytes) -> None:
    """Write bytes to an open file, in as many calls as the system takes."""
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]


def replace_durably(path: Path, content: bytes) -> None:
    """Replace a file's content in one step: readers see the old file or the new one, whole.

    Raises:
        DiskFault: If the file could not be written.
    """
    temporary = path.with_name(f"{_WRITING}{path.name}")
    try:
        write_durably(temporary, content)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise DiskFault(f"{path} cannot be written: {reason(error)}.", where=path) from error
        raise
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise DiskFault(
            f"{path} is written, but the disk did not confirm it ({reason(error)}), so a power cut may undo it.",
            "file-unconfirmed",
            path,
        ) from error


def reason(error: OSError) -> str:
    """Return what the system says went wrong, and what to do about it where that is clear."""
    return _REMEDIES.get(error.errno or 0) or error.strerror or type(error).__name__


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_parent(file: Path) -> None:
    """Make the directory that a file is to be written to.

    Raises:
        InputError: If that cannot be.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{file.parent} cannot be made: {reason(error)}; give another --out.", "file-unusable", file.parent
        ) from None


def sha256(content: bytes) -> str:
    """Return the SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path, file: str) -> bytes:
    try:
        return read_bytes(path / file, MAX_CHECKPOINT[file])
    except InputError as error:
        raise DamagedCheckpoint(f"{path.name}: {error}") from error
    except OSError as error:
        raise DamagedCheckpoint(f"{path.name}: {file} cannot be read: {error.strerror}.") from error


def _manifest(files: Mapping[str, bytes]) -> bytes:
    listed = {name: {"bytes": len(content), "sha256": sha256(content)} for name, content in sorted(files.items())}
    body = {"version": 1, "files": listed}
    itself = sha256(json.dumps(body, sort_keys=True).encode())
    return json.dumps({**body, "sha256": itself}, sort_keys=True, indent=1).encode()


def _take_tensors(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise ValueError(f"{path}: arrays of {value.dtype} cannot be kept")
        # The number keeps names apart: {"a/b": ...} and {"a": {"b": ...}} have the same path.
        name = f"{len(tensors)}:{path}"
        tensors[name] = np.asarray(value, order="C")
        return {_TENSOR: name}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        items = {str(key): item for key, item in value.items()}
        if len(items) < len(value) or _TENSOR in items:
            raise ValueError(f"{path}: two keys are the same text, or one is {_TENSOR!r}")
        return {key: _take_tensors(item, f"{path}/{key}" if path else key, tensors) for key, item in items.items()}
    if isinstance(value, (list, tuple)):
        return [_take_tensors(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{path}: {in_short(value)} cannot be kept")


def _put_tensors(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value
