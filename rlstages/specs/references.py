"""References to functions and classes as `module:qualname`, which specs store and worker processes resolve.

A curriculum file is a module named after the file. `load_file` imports it, and `sources` returns the files of such
modules, so that worker processes can import them too. Modules beside such a file can be imported like those of a
script: in the file, in worker processes, and when the run is resumed. Installed packages take precedence.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from rlstages.errors import InputError, nearest, reason_of, require
from rlstages.specs.neighbours import OWN_PACKAGES, KnownFiles, KnownFolders, file_of, folder_of, neighbours

_SOURCES: dict[str, Path] = {}
_LOADING = threading.local()


def reference(where: str, value: str | Callable[..., Any]) -> str:
    """Return the `module:qualname` of a function or class, or check a given one.

    Args:
        where: Owner of the reference, for the error message.
        value: Function or class, or its name.

    Raises:
        InputError: If the object has no importable name, like a lambda or a function in a function.
    """
    if isinstance(value, str):
        module, colon, qualname = value.partition(":")
        ok = bool(colon and module and qualname) and not module.startswith(".")
        require(ok, f"{where}: {value!r} is not of the form 'module:name'.", "name-invalid", where)
        return value
    made = f"{where}: {value!r} is made already; give its id, or the function or class that makes it."
    require(callable(value) or not hasattr(value, "step"), made, "setting-type", where, value=value)
    qualname = getattr(value, "__qualname__", "")
    named = callable(value) and bool(qualname) and "<" not in qualname
    named = named and (
        isinstance(value, type) or isinstance(getattr(value, "__self__", None), (type(None), type, ModuleType))
    )
    # Remove the address that Python shows for a function.
    shown = qualname.rpartition(".")[2] or repr(value)
    shown = "a lambda" if shown == "<lambda>" else shown
    sentence = f"{where}: {shown} has no name to import it by; define it with def or class at top level."
    require(named, sentence, "name-invalid", where)
    module = value.__module__
    if module == "__main__":
        module = _name_main_module(where)
    _note_beside_main(module)
    elsewhere = _walk(sys.modules.get(module), qualname)
    sentence = f"{where}: {value!r} is not what '{module}:{qualname}' stands for; give it a name of its own."
    require(elsewhere is None or elsewhere == value, sentence, "name-invalid", where)
    return f"{module}:{qualname}"


def class_at(where: str, what: str, name: str) -> Any:
    """Return the class that a spec names as `"module:Class"`.

    Args:
        where: Place of the spec, for the error message: `"stage 'walk'"`.
        what: Attribute of the spec that names the class.
        name: Name of the class.

    Raises:
        InputError: If the class cannot be imported.
    """
    module, _, qualname = name.partition(":")
    try:
        return getattr(importlib.import_module(module), qualname)
    except Exception as error:
        sentence = f"{where}: its {what} {name} cannot be imported ({reason_of(error)})."
        raise InputError(sentence, "import-failed", where, what) from error


def is_reference(text: str) -> bool:
    """Return whether a text is `module:qualname` instead of `module:Id-v0`, an id in gymnasium's registry."""
    _, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in name.split("."))


def resolve(name: str) -> Any:
    """Import the object that `module:qualname` names.

    Raises:
        InputError: If the module or the name in it does not exist, or the import fails.
    """
    reference("a reference", name)
    module_name, _, qualname = name.partition(":")
    found: Any = _imported(module_name, name)
    for part in qualname.split("."):
        if not hasattr(found, part):
            sentence = f"{name!r}: {module_name!r} has no {part!r}.{nearest(part, dir(found))}"
            raise InputError(sentence, "name-unknown", module_name, part)
        found = getattr(found, part)
    return found


def _imported(module: str, wanted: str) -> ModuleType:
    """Import a module, and turn any exception into one sentence that names the wanted object."""
    try:
        return _module(module)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or module
        wrong = module == missing or module.startswith(missing + ".")
        reason = "install it, or correct the name" if wrong else f"{module!r} imports it, so install it"
        raise InputError(
            f"{wanted!r}: there is no module {missing!r}; {reason}.", "import-failed", module, missing
        ) from error
    except Exception as error:
        reason = reason_of(error)
        raise InputError(f"{wanted!r}: {module!r} cannot be imported: {reason}.", "import-failed", module) from error


def _module(name: str) -> ModuleType:
    """Import a module, preferably from its known file."""
    if name in _SOURCES and name not in sys.modules:
        path = _SOURCES[name]
        gone = f"The file {path}, which the module {name!r} came from, is gone"
        sentence = f"{gone}; put it back, or give it as FILE under its old name, {path.name}."
        require(path.is_file(), sentence, "file-missing", path)
        if path.stem == name:
            return load_file(path)
    module = importlib.import_module(name)
    _note_beside_main(name)
    return module


def _walk(found: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def load_file(path: Path) -> ModuleType:
    """Import a Python file as a module named after it. A second call returns the same module.

    Raises:
        InputError: If the file's name is not a Python name, or is the name of another module.
    """
    path = path.resolve()
    name = path.stem
    sentence = f"{path.name}: a curriculum file's name must be a Python name; rename it."
    require(name.isidentifier(), sentence, "name-invalid", path.name, "name")
    require(path.is_file(), f"There is no file {path}.", "file-missing", path)
    loaded = sys.modules.get(name) or _worker_main(path)
    if loaded is not None and _is_at(getattr(loaded, "__file__", None), path):
        sys.modules[name] = loaded
        _SOURCES.update({name: path, **_usable_neighbours(name, path)})
        return loaded
    taken = loaded is not None or not _is_free(name, path)
    sentence = f"{path.name}: there is already a module named {name!r}; rename the file."
    require(not taken, sentence, "name-taken", path.name, "name")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path.name} is not a Python file.", "import-failed", path.name)
    module = importlib.util.module_from_spec(spec)
    known, around = dict(_SOURCES), loading()
    _SOURCES.update({name: path, **_usable_neighbours(name, path)})
    sys.modules[name], _LOADING.file = module, path
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        _SOURCES.clear()
        _SOURCES.update(known)
        raise
    finally:
        _LOADING.file = around
    return module


def loading() -> Path | None:
    """Return the file that this thread is importing, or `None`."""
    return getattr(_LOADING, "file", None)


def _usable_neighbours(name: str, path: Path) -> dict[str, Path]:
    """Return the modules beside a file that its imports can find.

    Raises:
        InputError: If one has the name of a module that was imported from beside another file.
    """
    found = neighbours(name, path)
    for module, file in found.items():
        other = _SOURCES.get(module, file)
        sentence = (
            f"{path.name} imports {module!r} from {file}, and under that name {other} is in use in this process; "
            "rename one of the two, or use a process for each."
        )
        require(other == file, sentence, "name-taken", path.name, module)
    return {module: file for module, file in found.items() if _is_free(*_top(module, file))}


def hidden() -> list[str]:
    """Return a warning for each file that is hidden by an installed module of the same name."""
    found = {}
    for name, path in _SOURCES.items():
        for module, file in neighbours(name, path).items():
            top, place = _top(module, file)
            if not _is_free(top, place):
                found[top] = (
                    f"{path.name} imports {top!r}, which is an installed module, and not "
                    f"{place.relative_to(folder_of(module, file))} beside it; rename that if it is meant."
                )
    return list(found.values())


def _top(module: str, file: Path) -> tuple[str, Path]:
    """Return the top-level name of a module, and its file, or its folder if that has no `__init__.py`."""
    top = module.partition(".")[0]
    folder = folder_of(module, file)
    return top, file_of(folder, top) or folder / top


def _is_free(name: str, path: Path) -> bool:
    """Return whether a module's top-level name is unused, or belongs to this file."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        # Namespace packages yield to any file; built-in modules have no file either.
        return _is_at(file, path) or (file is None and hasattr(loaded, "__path__"))
    for finder in sys.meta_path:
        with suppress(Exception):
            spec = None if isinstance(finder, KnownFiles) else finder.find_spec(name, None, None)
            if spec is not None:
                return spec.origin is None or _is_at(spec.origin, path)
    return True


sys.meta_path.insert(0, KnownFiles(lambda: _SOURCES))
sys.meta_path.append(KnownFolders(lambda: _SOURCES))


def _is_at(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).resolve() == path


def sources() -> dict[str, Path]:
    """Return the absolute paths of modules that were imported from files, by name."""
    return dict(_SOURCES)


def add_sources(paths: Mapping[str, Path]) -> None:
    """Let `resolve` find modules in these files, which are run when first needed. Loaded modules do not change."""
    _SOURCES.update({name: Path(path).resolve() for name, path in paths.items() if name not in sys.modules})


def note_package(module: str) -> None:
    """Note the files of an installed module that a curriculum comes from, and of the packages that it lies in.

    They may register environments, whose ids name no module. The package's own are brought in by everyone.
    """
    parts = module.split(".")
    if parts[0] in OWN_PACKAGES:
        return
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            _SOURCES.setdefault(name, Path(file).resolve())


def files_behind(names: Iterable[str]) -> dict[str, Path]:
    """Return the files of modules, and of modules beside them that they import, as far as known."""
    found: dict[str, Path] = {}
    for name in set(names) & set(_SOURCES):
        beside = {
            other: path for other, path in neighbours(name, _SOURCES[name]).items() if _SOURCES.get(other) == path
        }
        found |= {name: _SOURCES[name], **beside}
    return found


def import_registering() -> None:
    """Import known files that are not loaded yet and contain 'register', because they probably register environments.

    The id of an environment does not name a module, so there is no other way to find the file that registers it.

    Raises:
        InputError: If a file cannot be imported.
    """
    for name, path in sources().items():
        if name not in sys.modules and path.is_file() and b"register" in path.read_bytes():
            _imported(name, name)


def modules_named(data: Any) -> set[str]:
    """Return the modules in all `module:name` texts of plain data."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, (list, tuple)):
        return {module for item in data for module in modules_named(item)}
    return {data.partition(":")[0]} if isinstance(data, str) and ":" in data else set()


def _name_main_module(where: str) -> str:
    """Make the running script importable under the name of its file."""
    main = sys.modules["__main__"]
    started_as = getattr(getattr(main, "__spec__", None), "name", None)
    if started_as is not None:
        return str(started_as)
    file = getattr(main, "__file__", None)
    sentence = f"{where}: functions typed into a prompt cannot be named; put them into a file."
    require(file is not None, sentence, "name-invalid", where)
    path = Path(str(file)).resolve()
    sentence = f"{path.name}: the script's name must be a Python name; rename it."
    require(path.stem.isidentifier(), sentence, "name-invalid", path.name, "name")
    taken = sys.modules.setdefault(path.stem, main) is not main
    sentence = f"{path.name}: there is already a module named {path.stem!r}; rename the script."
    require(not taken, sentence, "name-taken", path.name, "name")
    if path.stem not in _SOURCES:
        _SOURCES.update({path.stem: path, **_usable_neighbours(path.stem, path)})
    return path.stem


def _note_beside_main(name: str) -> None:
    """Record the file of a loaded module that lies beside the running script or notebook.

    Python finds it there in this process, but not in a process that resumes the run.
    """
    main, top = sys.modules["__main__"], name.partition(".")[0]
    if name in _SOURCES or top in OWN_PACKAGES or getattr(main, "__spec__", None) is not None:
        return
    script = getattr(main, "__file__", None)
    file = file_of(Path.cwd() if script is None else Path(script).resolve().parent, name)
    if file is not None and _is_at(getattr(sys.modules.get(name), "__file__", None), file):
        _SOURCES.update({name: file, **_usable_neighbours(name, file)})


def _worker_main(path: Path) -> ModuleType | None:
    """Return the script that a worker process has already imported, if this is its file."""
    main = sys.modules.get("__mp_main__")
    return main if _is_at(getattr(main, "__file__", None), path) else None
