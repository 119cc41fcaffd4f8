"""Removal of absolute paths, which name people and machines, from text and specs."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from rlstages.specs.serialization import TAG

_PATH_IN_TEXT = re.compile(r"""(?:(?<=^)|(?<=[\s'"(\[=]))(?:~?/|[A-Za-z]:\\)[^\s'"()\[\],;]+""")


def without_paths(data: Any) -> Any:
    """Return plain data in which every absolute path, alone or within a sentence, is cut to its last part.

    Keys stay as they are, and so do the names of specs, which would else no longer differ.
    """
    if isinstance(data, dict):
        kept = "name" if TAG in data else None
        return {key: value if key == kept else without_paths(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [without_paths(value) for value in data]
    if not isinstance(data, str):
        return data
    if PurePosixPath(data).is_absolute() or data.startswith("~") or PureWindowsPath(data).is_absolute():
        return _last_part(data)
    return _PATH_IN_TEXT.sub(lambda found: _last_part(found[0]), data)


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name or "(path)"
