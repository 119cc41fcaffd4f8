"""Modules beside a file: finding those that it imports without running it, and importing them."""

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
    """Return the modules beside a file that it imports or names (in functions too), directly or indirectly.

    Args:
        name: Full name of the file's module.
        path: Path of the file.

    Returns:
        Files by module name.
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
    """Return the folder in which a module's top-level name is found."""
    return path.parents[name.count(".") + (path.name == INIT)]


def file_of(folder: Path, name: str) -> Path | None:
    """Return the file of a module in a folder, or `None`."""
    base = folder.joinpath(*name.split("."))
    files = (base / INIT, base.with_name(f"{base.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _imports(name: str, path: Path) -> Iterator[str]:
    """Yield the names that a file imports. Some may be functions and classes instead of modules."""
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
    """A finder of modules whose files are known.

    Args:
        known: Function that returns these files by module name.
    """

    def __init__(self, known: Callable[[], MutableMapping[str, Path]]) -> None:
        self._known = known

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a top-level module."""
        file = self._known().get(fullname) if path is None else None
        return None if file is None else _spec_at(fullname, file)


class KnownFolders(KnownFiles):
    """A finder of modules beside known files, which then become known. It is used after all other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a top-level module."""
        known = self._known() if path is None else {}
        for folder in dict.fromkeys(folder_of(name, file) for name, file in known.items()):
            file = file_of(folder, fullname)
            if file is not None:
                known[fullname] = file
                return _spec_at(fullname, file)
            # Ignore other folders: Weights & Biases and others leave folders with the names of packages.
            if (folder / fullname).is_dir() and any(name.startswith(f"{fullname}.") for name in known):
                spec = ModuleSpec(fullname, None, is_package=True)
                spec.submodule_search_locations = [str(folder / fullname)]
                return spec
        return None


def _spec_at(name: str, file: Path) -> ModuleSpec | None:
    inside = [str(file.parent)] if file.name == INIT else None
    return importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
