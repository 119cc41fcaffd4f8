"""The modules beside a file: which of them it imports, found in its text without running it, and how they are found."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

INIT = "__init__.py"
OWN_PACKAGES = ("rlstages", "rlstages_envs")


def neighbours(name: str, path: Path) -> dict[str, Path]:
    """Return the modules beside a file that it imports or names, in functions too, and those that they import.

    Args:
        name: Of the file's module, with its packages.
        path: The file.

    Returns:
        Files by the names of their modules.
    """
    folder, found, waiting = folder_of(name, path), dict[str, Path](), [(name, path)]
    while waiting:
        for imported in _imports(*waiting.pop()):
            parts = imported.split(".")
            for part in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
                file = file_of(folder, part)
                if file is None or file == path or part in found or parts[0] in OWN_PACKAGES:
                    continue
                found[part] = file
                waiting.append((part, file))
    return found


def folder_of(name: str, path: Path) -> Path:
    """Return the folder that a module's first name is found in."""
    return path.parents[name.count(".") + (path.name == INIT)]


def file_of(folder: Path, name: str) -> Path | None:
    """Return the file of a module that is found in a folder, if there is one."""
    base = folder.joinpath(*name.split("."))
    files = (base / INIT, base.with_name(f"{base.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _imports(name: str, path: Path) -> Iterator[str]:
    """Yield the names of what a file imports; some may be functions and classes rather than modules."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        # Whoever imports it is told.
        return
    package = name.split(".") if path.name == INIT else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from filter(None, [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named, colon, _ = node.value.partition(":")
            yield from [named] if colon and all(part.isidentifier() for part in named.split(".")) else []


class KnownFiles(MetaPathFinder):
    """Finds modules whose files are known.

    Args:
        known: Returns these files by their modules' names.
    """

    def __init__(self, known: Callable[[], MutableMapping[str, Path]]) -> None:
        self._known = known

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is that is in no package."""
        file = self._known().get(fullname) if path is None else None
        return None if file is None else _spec_at(fullname, file)


class KnownFolders(KnownFiles):
    """Finds modules beside known files, which then are known themselves; it is asked after all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is that is in no package."""
        known = self._known() if path is None else {}
        for folder in dict.fromkeys(folder_of(name, file) for name, file in known.items()):
            file = file_of(folder, fullname)
            if file is not None:
                known[fullname] = file
                return _spec_at(fullname, file)
            # Not any folder: Weights & Biases and others leave some that are called as packages are.
            if (folder / fullname).is_dir() and any(name.startswith(f"{fullname}.") for name in known):
                spec = ModuleSpec(fullname, None, is_package=True)
                spec.submodule_search_locations = [str(folder / fullname)]
                return spec
        return None


def _spec_at(name: str, file: Path) -> ModuleSpec | None:
    inside = [str(file.parent)] if file.name == INIT else None
    return importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
