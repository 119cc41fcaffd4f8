"""Checkpoints: a directory is either whole, or not there.

Tensors lie in safetensors and everything else in strict JSON, so that loading runs no code. A manifest names every
file's size and SHA-256, and its own. The directory is written under a temporary name, synced, renamed, and its parent
synced: a crash at any point leaves the checkpoint before it untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_TENSOR = "$tensor"
_TEMPORARY = ".writing-"


class DamagedCheckpoint(Exception):
    """A checkpoint that is not what was written: one sentence names the file and what is wrong with it."""


def write_checkpoint(directory: Path, name: str, state: Mapping[str, Any]) -> Path:
    """Write a checkpoint, visible under its name only when whole.

    Args:
        directory: Where checkpoints lie.
        name: Of the new one; names sort by age.
        state: Nested dictionaries (their keys become strings) and lists of JSON values and NumPy arrays.

    Returns:
        Its path.

    Raises:
        OSError: If it could not be written; the checkpoints before it are untouched.
        ValueError: If the state holds something else, such as a number that is not finite.
    """
    tensors: dict[str, np.ndarray] = {}
    tree = _take_tensors(state, "", tensors)
    files = {
        TENSORS: save_tensors(tensors),
        STATE: json.dumps(tree, allow_nan=False).encode(),
    }
    files[MANIFEST] = _manifest(files)
    temporary, final = directory / f"{_TEMPORARY}{name}", directory / name
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for file, content in files.items():
            write_durably(temporary / file, content)
        sync_directory(temporary)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(directory)
    return final


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint back, after checking every byte against the manifest.

    Raises:
        DamagedCheckpoint: If anything is missing, changed or unreadable.
    """
    try:
        content = {file: (path / file).read_bytes() for file in (TENSORS, STATE, MANIFEST)}
    except OSError as error:
        raise DamagedCheckpoint(
            f"{path.name}: {error.filename and Path(error.filename).name} cannot be read."
        ) from error
    if _manifest({file: content[file] for file in (TENSORS, STATE)}) != content[MANIFEST]:
        raise DamagedCheckpoint(f"{path.name}: its files do not match its manifest.")
    try:
        tree = json.loads(content[STATE])
        state = _put_tensors(tree, load_tensors(content[TENSORS]))
    except Exception as error:
        raise DamagedCheckpoint(f"{path.name}: {error}") from error
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"{path.name}: {STATE} holds no object.")
    return state


def checkpoint_names(directory: Path) -> list[str]:
    """Return the names of the checkpoints in a directory, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))


def prune(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what writing left half-done."""
    names = checkpoint_names(directory)
    for name in names[: max(0, len(names) - keep)]:
        shutil.rmtree(directory / name, ignore_errors=True)
    for leftover in directory.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes) -> None:
    """Replace a file's content in one step: readers see the old file or the new one, whole."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        write_durably(temporary, content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(content: bytes) -> str:
    """Return the SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


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
        return value.item()
    if isinstance(value, Mapping):
        items = {str(key): item for key, item in value.items()}
        if len(items) < len(value) or _TENSOR in items:
            raise ValueError(f"{path}: two keys are the same text, or one is {_TENSOR!r}")
        return {key: _take_tensors(item, f"{path}/{key}" if path else key, tensors) for key, item in items.items()}
    if isinstance(value, (list, tuple)):
        return [_take_tensors(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value
