"""Functions and classes by name: `module:qualname`, so that specs serialise and workers can find them.

A curriculum file counts as a module of its own, named after the file. `load_file` brings it in; `sources` says where
such modules came from, so that a worker process can bring them in too.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rlstages.errors import InputError, nearest, require

_SOURCES: dict[str, Path] = {}


def reference(where: str, value: str | Callable[..., Any]) -> str:
    """Return the `module:qualname` of a function or class, or check one that is given as such.

    Args:
        where: What the reference belongs to, for the error message.
        value: The function or class itself, or its name.

    Raises:
        InputError: If the object has no importable name (a lambda, or defined inside a function).
    """
    if isinstance(value, str):
        module, colon, qualname = value.partition(":")
        ok = bool(colon and module and qualname) and not module.startswith(".")
        require(ok, f"{where}: {value!r} is not of the form 'module:name'.")
        return value
    qualname = getattr(value, "__qualname__", "")
    named = callable(value) and bool(qualname) and "<" not in qualname
    require(named, f"{where}: {value!r} has no name to import it by; define it with def or class at top level.")
    module = value.__module__
    if module == "__main__":
        module = _name_main_module(where)
    return f"{module}:{qualname}"


def resolve(name: str) -> Any:
    """Import what `module:qualname` names.

    Raises:
        InputError: If the module or the name in it does not exist.
    """
    module_name, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        if module_name in _SOURCES:
            found = load_file(_SOURCES[module_name])
        else:
            raise InputError(f"{name!r}: there is no module {error.name!r}; install it, or correct the name.") from None
    for part in qualname.split("."):
        if not hasattr(found, part):
            hint = nearest(part, vars(found))
            raise InputError(f"{name!r}: {module_name!r} has no {part!r}.{hint}")
        found = getattr(found, part)
    return found


def load_file(path: Path) -> ModuleType:
    """Import a Python file as a module named after it; a second call returns the same module.

    Raises:
        InputError: If the file's name is no Python name, or hides a module that is already there.
    """
    path = path.resolve()
    name = path.stem
    require(name.isidentifier(), f"{path.name}: a curriculum file's name must be a Python name; rename it.")
    if _SOURCES.get(name) == path and name in sys.modules:
        return sys.modules[name]
    taken = name in _SOURCES or name in sys.modules or importlib.util.find_spec(name) is not None
    require(not taken, f"{path.name}: there is already a module named {name!r}; rename the file.")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path.name} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _SOURCES[name] = path
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name], _SOURCES[name]
        raise
    return module


def sources() -> dict[str, Path]:
    """Return where the modules that came from files are: name to absolute path."""
    return dict(_SOURCES)


def add_sources(paths: Mapping[str, Path]) -> None:
    """Let `resolve` find modules in these files; they are run when first needed."""
    _SOURCES.update({name: Path(path).resolve() for name, path in paths.items()})


def _name_main_module(where: str) -> str:
    """Make the running script importable under its file's name."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    require(file is not None, f"{where}: functions typed into a prompt cannot be named; put them into a file.")
    path = Path(str(file)).resolve()
    _SOURCES.setdefault(path.stem, path)
    sys.modules.setdefault(path.stem, main)
    return path.stem
