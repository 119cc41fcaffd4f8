"""Directories whose runs belong together: what their file says of them, and what Weights & Biases calls their group."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rlstages.errors import InputError, require_sound
from rlstages.specs.serialization import loads
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.lock import LOCK_FILE as LOCK
from rlstages.storage.lock import lock, patiently, unlock
from rlstages.storage.untrusted import read_bytes

COMPARISON, SWEEP = "comparison.json", "sweep.json"
_KEY, _MOST, _MOST_OF_A_TAG = "group", 128, 64


@dataclass(frozen=True)
class Membership:
    """What a run belongs to.

    Attributes:
        group: Its name, which no other comparison or sweep has.
        tag: Arm, of a run of a comparison.
        kind: `"compare"` or `"sweep"`.
    """

    group: str
    tag: str | None
    kind: str


def found(directory: Path, file: str, about: Mapping[str, Any], name: str) -> None:
    """Make a directory for runs that belong together, with its file, or add a group to one of before.

    Of many processes that come at once, one writes the file.

    Args:
        directory: Directory of the runs.
        file: `COMPARISON` or `SWEEP`.
        about: What its file is to say.
        name: What the group's name begins with.

    Raises:
        InputError: If it cannot be written, or the file is damaged.
    """

    def write() -> None:
        if _KEY in _said(directory / file):
            return
        held = lock(directory)
        try:
            said = _said(directory / file)
            if _KEY not in said:
                said = {**about, **said, _KEY: f"{name}-{secrets.token_hex(4)}"}
                replace_durably(directory / file, json.dumps(said, indent=1).encode())
        finally:
            unlock(held)

    try:
        directory.mkdir(parents=True, exist_ok=True)
        patiently(write)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written: {error.strerror}; give another --out.", "file-unusable", directory
        ) from error


def is_unused(directory: Path, file: str) -> bool:
    """Whether a directory is not there, or holds no more than is there while another process makes its file.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        names = {entry.name for entry in directory.iterdir()} if directory.exists() else set()
    except OSError as error:
        raise InputError(
            f"{directory} cannot be read: {error.strerror}; give another --out.", "file-unusable", directory
        ) from error
    return names <= {LOCK, f".writing-{file}"}


def membership_of(run: Path) -> Membership | None:
    """Return what a run directory belongs to by the directory that it lies in, or `None`."""
    for file in (COMPARISON, SWEEP):
        try:
            group = _said(run.parent / file).get(_KEY)
        except (InputError, OSError):
            continue
        if isinstance(group, str) and 0 < len(group) <= _MOST and group.isprintable():
            arm = re.fullmatch(r"(.+)-s\d+", run.name) if file == COMPARISON else None
            kind = "compare" if file == COMPARISON else "sweep"
            return Membership(group, arm[1][:_MOST_OF_A_TAG] if arm else None, kind)
    return None


def _said(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    said = loads(read_bytes(file))
    require_sound(isinstance(said, dict), f"{file} is damaged: it holds no object.", file)
    return cast(dict[str, Any], said)
