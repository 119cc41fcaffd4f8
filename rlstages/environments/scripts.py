"""Checks of training scripts, which the processes of environments import and which must not train again there."""

from __future__ import annotations

import ast
import sys
from multiprocessing import process
from pathlib import Path
from types import FrameType

from rlstages.errors import InputError
from rlstages.specs.references import loading

GUARD = 'if __name__ == "__main__":'


def refuse_while_imported(what: str) -> None:
    """Refuse what a file does where it is only to be imported: as a curriculum, or in the process of an environment.

    Raises:
        InputError: Naming the file.
    """
    file = loading()
    if file is None and getattr(process.current_process(), "_inheriting", False):
        # Python imports the running script in processes that it starts, and says so by this alone.
        frames = [frame for frame in _frames() if frame.f_globals.get("__name__") == "__mp_main__"]
        file = Path(frames[-1].f_code.co_filename) if frames else None
    if file is not None:
        sentence = f"{file.name} calls {what}() where it is imported; put that under {GUARD}"
        raise InputError(sentence, "call-misplaced", file.name, what)


def refuse_unguarded(what: str) -> None:
    """Refuse to start processes from a script which each of them would run from its beginning.

    Raises:
        InputError: Naming the line.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    # A package that is run by `python -m` is not imported again.
    if file is None or str(getattr(getattr(main, "__spec__", None), "name", "")).endswith("__main__"):
        return
    for frame in _frames():
        own = frame.f_globals is vars(main) and frame.f_code.co_filename == file
        if own and frame.f_code.co_name == "<module>" and not _is_guarded(Path(file), frame.f_lineno):
            sentence = (
                f"{Path(file).name}, line {frame.f_lineno}: {what} start processes, and each of them imports this "
                f"script: put what it does under {GUARD}, or leave out vectorize='subprocess'."
            )
            raise InputError(sentence, "call-misplaced", Path(file).name)


def _frames() -> list[FrameType]:
    """Return the frames of the call, the innermost first."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _is_guarded(file: Path, line: int) -> bool:
    """Say whether a line of a script stands in a condition on `__name__`, or after one that ends an import."""
    try:
        statements = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True
    for statement in statements:
        if statement.lineno > line:
            break
        conditional = isinstance(statement, ast.If) and any(
            isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test)
        )
        if conditional and (line <= (statement.end_lineno or line) or _leaves(statement)):
            return True
    return False


def _leaves(statement: ast.stmt) -> bool:
    """Say whether a condition's body raises or calls `exit`."""
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) in ("exit", "sys.exit", "os._exit"))
        for node in ast.walk(statement)
    )
