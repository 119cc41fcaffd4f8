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

from rlstages.errors import InputError, nearest, reason_of, require

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
    made = f"{where}: {value!r} is made already; give its id, or the function or class that makes it."
    require(callable(value) or not hasattr(value, "step"), made)
    qualname = getattr(value, "__qualname__", "")
    named = callable(value) and bool(qualname) and "<" not in qualname
    named = named and (
        isinstance(value, type) or isinstance(getattr(value, "__self__", None), (type(None), type, ModuleType))
    )
    require(named, f"{where}: {value!r} has no name to import it by; define it with def or class at top level.")
    module = value.__module__
    if module == "__main__":
        module = _name_main_module(where)
    elsewhere = _walk(sys.modules.get(module), qualname)
    require(
        elsewhere is None or elsewhere == value,
        f"{where}: {value!r} is not what '{module}:{qualname}' stands for; give it a name of its own.",
    )
    return f"{module}:{qualname}"


def is_reference(text: str) -> bool:
    """Say whether a text is `module:qualname`, and not `module:Id-v0`, which names an entry of gymnasium's registry."""
    _, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in name.split("."))


def resolve(name: str) -> Any:
    """Import what `module:qualname` names.

    Raises:
        InputError: If the module or the name in it does not exist, or importing the module fails.
    """
    reference("a reference", name)
    module_name, _, qualname = name.partition(":")
    try:
        found: Any = _module(module_name)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        wrong = module_name == missing or module_name.startswith(missing + ".")
        reason = "install it, or correct the name" if wrong else f"{module_name!r} imports it, so install it"
        raise InputError(f"{name!r}: there is no module {missing!r}; {reason}.") from error
    except Exception as error:
        reason = reason_of(error)
        raise InputError(f"{name!r}: {module_name!r} cannot be imported: {reason}.") from error
    for part in qualname.split("."):
        if not hasattr(found, part):
            raise InputError(f"{name!r}: {module_name!r} has no {part!r}.{nearest(part, dir(found))}")
        found = getattr(found, part)
    return found


def _module(name: str) -> ModuleType:
    """Import a module, from the file that is known for it rather than from one of the same name elsewhere."""
    if name in _SOURCES and name not in sys.modules:
        path = _SOURCES[name]
        gone = f"The file {path}, which the module {name!r} came from, is gone"
        require(path.is_file(), f"{gone}; put it back, or give it as FILE under its old name, {path.name}.")
        return load_file(path)
    return importlib.import_module(name)


def _walk(found: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def load_file(path: Path) -> ModuleType:
    """Import a Python file as a module named after it; a second call returns the same module.

    Raises:
        InputError: If the file's name is no Python name, or hides a module that is already there.
    """
    path = path.resolve()
    name = path.stem
    require(name.isidentifier(), f"{path.name}: a curriculum file's name must be a Python name; rename it.")
    require(path.is_file(), f"There is no file {path}.")
    loaded = sys.modules.get(name)
    if loaded is not None and _is_at(getattr(loaded, "__file__", None), path):
        _SOURCES[name] = path
        return loaded
    found = importlib.util.find_spec(name) if loaded is None else None
    taken = loaded is not None or (found is not None and not _is_at(found.origin, path))
    require(not taken, f"{path.name}: there is already a module named {name!r}; rename the file.")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path.name} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    known = _SOURCES.get(name)
    sys.modules[name], _SOURCES[name] = module, path
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        del _SOURCES[name]
        if known is not None:
            _SOURCES[name] = known
        raise
    return module


def _is_at(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).resolve() == path


def sources() -> dict[str, Path]:
    """Return where the modules that came from files are: name to absolute path."""
    return dict(_SOURCES)


def add_sources(paths: Mapping[str, Path]) -> None:
    """Let `resolve` find modules in these files; they are run when first needed. A loaded module stays as it is."""
    _SOURCES.update({name: Path(path).resolve() for name, path in paths.items() if name not in sys.modules})


def modules_named(data: Any) -> set[str]:
    """Return the modules of all `module:name` texts in plain data."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, (list, tuple)):
        return {module for item in data for module in modules_named(item)}
    return {data.partition(":")[0]} if isinstance(data, str) and ":" in data else set()


def _name_main_module(where: str) -> str:
    """Make the running script importable under its file's name."""
    main = sys.modules["__main__"]
    started_as = getattr(getattr(main, "__spec__", None), "name", None)
    if started_as is not None:
        return str(started_as)
    file = getattr(main, "__file__", None)
    require(file is not None, f"{where}: functions typed into a prompt cannot be named; put them into a file.")
    path = Path(str(file)).resolve()
    require(path.stem.isidentifier(), f"{path.name}: the script's name must be a Python name; rename it.")
    taken = sys.modules.setdefault(path.stem, main) is not main
    require(not taken, f"{path.name}: there is already a module named {path.stem!r}; rename the script.")
    _SOURCES[path.stem] = path
    return path.stem
