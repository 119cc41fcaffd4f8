"""Where the files lie that a run needs from outside its directory: kept relative to it, so that they move with it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

_RUN = "{run}/"


def typed(path: Path) -> str:
    """Return a path as it can be typed here: from the working directory on if it is below it, and quoted for a shell.

    Elsewhere it is absolute: a way up and down again would name what privacy leaves out of logs, unnoticed.
    """
    try:
        whole, here = Path(os.path.abspath(path)), Path.cwd()
    except OSError:
        # The working directory is gone.
        return shlex.quote(str(path))
    text = str(whole.relative_to(here) if whole.is_relative_to(here) else whole)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def relative_to_run(data: Any, run: Path) -> Any:
    """Return plain data in which every string that is an absolute path starts from the run directory instead.

    So a run directory does not say where on the machine it was made, and still finds what it needs when it is moved
    together with its neighbours. `absolute_from_run` is the inverse.
    """

    def turn(text: str) -> str:
        return _RUN + os.path.relpath(text, run.resolve()) if os.path.isabs(text) else text

    return _each(data, turn)


def absolute_from_run(data: Any, run: Path) -> Any:
    """Return the data of `relative_to_run` with absolute paths again."""

    def turn(text: str) -> str:
        return os.path.normpath(run.resolve() / text.removeprefix(_RUN)) if text.startswith(_RUN) else text

    return _each(data, turn)


def _each(data: Any, turn: Callable[[str], str]) -> Any:
    if isinstance(data, dict):
        return {key: _each(value, turn) for key, value in data.items()}
    if isinstance(data, list):
        return [_each(value, turn) for value in data]
    return turn(data) if isinstance(data, str) else data
