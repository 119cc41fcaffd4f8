"""Loading of curricula from files and by name, with parameters."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from rlstages.errors import InputError, nearest, reason_of, require
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.plain import plain
from rlstages.specs.references import load_file, note_package, resolve

ENTRY_POINTS = "rlstages.curricula"


Factory = Callable[..., Curriculum]


def named_curricula() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the curricula of installed packages, by name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def load_factory(source: str) -> Factory:
    """Return the function `curriculum` of a file, or of a named curriculum.

    Args:
        source: Path of a Python file, or the name of an installed curriculum.

    Raises:
        InputError: If there is no such file or name, or the file does not define `curriculum`.
    """
    path = Path(source)
    if path.suffix == ".py":
        require(path.is_file(), f"There is no curriculum file {source!r}.", "file-missing", path)
        module = _guarded(path, lambda: load_file(path))
        factory = getattr(module, "curriculum", None)
        sentence = f"{path.name} defines no function 'curriculum'; define one that returns a Curriculum."
        require(callable(factory), sentence, "import-failed", path.name, "curriculum")
        return cast(Factory, factory)
    known = named_curricula()
    names = ", ".join(known)
    sentence = f"There is no curriculum {source!r}; known are {names}.{nearest(source, known)}"
    require(source in known, sentence, "name-unknown", name="curriculum", value=source)
    factory = resolve(known[source].value)
    note_package(known[source].module)
    return cast(Factory, factory)


def load_curriculum(source: str, parameters: Mapping[str, Any] | None = None) -> Curriculum:
    """Load a curriculum from a file or by name.

    Args:
        source: Path of a Python file, or the name of an installed curriculum.
        parameters: Values of the function's parameters. Text is converted according to the annotations.

    Raises:
        InputError: If the file, a parameter or the curriculum itself is wrong.
    """
    return load_with_parameters(source, parameters)[0]


def load_with_parameters(source: str, parameters: Mapping[str, str] | None = None) -> tuple[Curriculum, dict[str, Any]]:
    """Load a curriculum like `load_curriculum`, and also return the converted parameters.

    Raises:
        InputError: If the file, a parameter or the curriculum itself is wrong.
    """
    factory = load_factory(source)
    arguments = _read_parameters(source, factory, parameters or {})
    curriculum = _guarded(Path(source), lambda: factory(**arguments))
    is_one = isinstance(curriculum, Curriculum)
    sentence = f"{source}: the function 'curriculum' returned {type(curriculum).__name__}, not a Curriculum."
    require(is_one, sentence, "import-failed", source, "curriculum")
    return cast(Curriculum, curriculum), arguments


def parameters_of(factory: Factory) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a curriculum's function, with annotations resolved if possible."""
    try:
        found = inspect.signature(factory, eval_str=True)
    except Exception:
        # The annotation can be resolved only by a type checker.
        found = inspect.signature(factory)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: parameter for name, parameter in found.parameters.items() if parameter.kind not in variadic}


def _read_parameters(source: str, factory: Factory, given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = parameters_of(factory)
    for name in given:
        takes = ", ".join(parameters) or "none"
        hint = nearest(name, parameters)
        sentence = f"{source}: there is no parameter {name!r}; it takes {takes}.{hint}"
        require(name in parameters, sentence, "setting-unknown", source, name)
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in given]
    sentence = f"{source}: give a value for {', '.join(missing)}, for example -p {''.join(missing[:1])}=..."
    require(not missing, sentence, "setting-missing", source, "".join(missing[:1]))
    return {name: _read_parameter(f"{source}: {name}", value, parameters[name]) for name, value in given.items()}


def _read_parameter(where: str, value: Any, parameter: inspect.Parameter) -> Any:
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    kind = str if parameter.annotation is inspect.Parameter.empty else parameter.annotation
    wanted = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    try:
        adapter: Any = TypeAdapter(kind)
        return adapter.validate_strings(value) if isinstance(value, str) else adapter.validate_python(plain(value))
    except ValidationError:
        raise InputError(
            f"{where} is {value!r}, which is not of the type {wanted}.", "setting-type", where, value=value
        ) from None
    except PydanticUserError:
        raise InputError(
            f"{where} is of the type {wanted}, which cannot be given as text.", "setting-type", where, value=value
        ) from None


def _guarded(path: Path, run: Callable[[], Any]) -> Any:
    """Run a user's code, and turn any exception into one sentence with file and line."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(sys.exc_info()[2])
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        where = f"{path.name}, line {lines[-1]}" if lines else str(path)
        if isinstance(error, SyntaxError):
            file = Path(error.filename).name if error.filename else path.name
            line = f", line {error.lineno}" if error.lineno else ""
            raise InputError(f"{file}{line}: {error.msg}.", "import-failed", f"{file}{line}") from None
        if isinstance(error, InputError):
            raise (error.retold(f"{where}: {error}", where=where) if lines else error.retold(str(error))) from None
        raise InputError(f"{where}: {reason_of(error)}", "import-failed", where) from error
