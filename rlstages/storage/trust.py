"""Checks of the code that a run directory may import.

`run.json` names environments, wrappers, experts and rules of success as `module:name`, and going on with the run
imports and calls them. In a run that somebody else made, only names of gymnasium and of `rlstages_envs` are followed,
and of gymnasium only what is an environment or a wrapper: other functions of it would call whatever they are given.
All other names need a curriculum file of this user's that says the same, `trust_imports`, or a run of their own.

A run is this user's own if they made it here. The proof does not lie in the run directory, where anybody could put
it, but in a note in the user's state directory. It stands for the directory's path, the curriculum and the files that
its functions come from: a run that was copied, moved or changed is a stranger's.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlstages.errors import require
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.references import add_sources, is_reference
from rlstages.storage.checkpoints import DiskFault, replace_durably, sha256
from rlstages.storage.record import RunRecord

OURS, GYMNASIUM = "rlstages_envs", "gymnasium"


def trust_sources(
    run: Path, record: RunRecord, curriculum: Curriculum | None = None, trust_imports: bool = False
) -> None:
    """Refuse a run whose names may not be followed, and let `resolve` find the files of one whose names may.

    Args:
        run: Run directory.
        record: What its `run.json` says.
        curriculum: One that this user gave: the environments and experts in it are trusted.
        trust_imports: Whether all names are.

    Raises:
        InputError: Naming what may not be imported.
    """
    if trust_imports or is_own(run, record):
        add_sources({name: run / relative for name, relative in record.sources.items()})
        return
    strange = _strange_names([record.curriculum], [] if curriculum is None else [curriculum])
    sentence = (
        f"{run} names {''.join(map(repr, strange[:1]))}, which is neither gymnasium's nor rlstages_envs', and the run "
        "was not made here by you; give the curriculum FILE that says the same, or --trust-imports if you trust "
        "whoever made it."
    )
    require(not strange, sentence, "untrusted", run, "".join(strange[:1]))


def trust_names(file: Path, curricula: Sequence[Curriculum], sources: Mapping[str, Path], trust_imports: bool) -> None:
    """Refuse a file whose names may not be followed, and let `resolve` find the files of one whose names may.

    Args:
        file: File of the curricula.
        curricula: What it names.
        sources: Files that their functions come from, by module name.
        trust_imports: Whether all names may be followed.

    Raises:
        InputError: Naming what may not be imported.
    """
    if trust_imports:
        add_sources(sources)
        return
    strange = "".join(map(repr, _strange_names(curricula)[:1]))
    why = "is neither gymnasium's nor rlstages_envs'; give --trust-imports if you trust whoever made it."
    require(not strange, f"{file} names {strange}, which {why}", "untrusted", file)


def needs_trust(curricula: Iterable[Curriculum], sources: Mapping[str, object]) -> bool:
    """Return whether curricula contain names that need trust."""
    # A file may register ids for what gymnasium makes.
    return bool(sources) or bool(_strange_names(curricula))


def remember(run: Path, record: RunRecord) -> None:
    """Note that a run is this user's own. If the note cannot be written, the run counts as a stranger's later."""
    note = _note(run, record)
    if note is None or not needs_trust([record.curriculum], record.sources):
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_durably(note, f"{run.resolve()}\n".encode())
    except (OSError, DiskFault):
        return


def is_own(run: Path, record: RunRecord) -> bool:
    """Return whether this user made the run here, and it is unchanged."""
    note = _note(run, record)
    if note is None or not note.is_file():
        return False
    # Files in the run directory may come from a stranger; files elsewhere are this user's.
    return not any((run / file).resolve().is_relative_to(run.resolve()) for file in record.sources.values())


def _note(run: Path, record: RunRecord) -> Path | None:
    """Return the file whose existence says that a run is this user's own; `None` without a state directory."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        base = state if state.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    said = [str(run.resolve()), record.run_id, record.curriculum.digest, dict(record.sources)]
    return base / "rlstages" / "runs" / sha256(json.dumps(said, sort_keys=True).encode())


def _parts(curriculum: Curriculum) -> Iterator[Environment | Expert]:
    yield from curriculum.held_out
    for stage in curriculum.stages:
        yield from stage.environments
        yield from stage.experts


def _strange_names(curricula: Iterable[Curriculum], given: Iterable[Curriculum] = ()) -> list[str]:
    """Return the names that need trust, except for environments and experts of the given curricula."""
    known = {part for curriculum in given for part in _parts(curriculum)}
    parts = dict.fromkeys(part for curriculum in curricula for part in _parts(curriculum))
    found = (_strange_name(part) for part in parts if part not in known)
    return [name for name in found if name is not None]


def _strange_name(part: Environment | Expert) -> str | None:
    """Return the first name in a spec that needs trust, or `None`."""
    if isinstance(part, Expert):
        return part.source if part.kind == "function" and not _is_known(part.source) else None
    if not (_is_known(part.id, gym.Env) if is_reference(part.id) else _is_registered(part.id)):
        return part.id
    if isinstance(part.success, str) and ":" in part.success and not _is_known(part.success):
        return part.success
    return next((wrapper for wrapper in part.wrappers if not _is_known(wrapper, gym.Wrapper)), None)


def _is_known(name: str, kind: type | None = None) -> bool:
    """Say whether a name stands for something that `rlstages_envs` defines, or for a class of gymnasium's of a kind."""
    module, _, qualname = name.partition(":")
    if _package(module) not in (OURS, GYMNASIUM):
        return False
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception:
        # What it is that does not exist is said better by whoever follows the name.
        return True
    home = _package(str(getattr(found, "__module__", "")))
    if home == OURS:
        return callable(found)
    of_kind = kind is not None and isinstance(found, type) and issubclass(found, kind)
    # A wrapper is an environment to Python, but not one that can be made from arguments.
    return home == GYMNASIUM and of_kind and (kind is gym.Wrapper or not issubclass(found, gym.Wrapper))


def _is_registered(id: str) -> bool:
    """Return whether an id is registered for an environment of `rlstages_envs` or gymnasium."""
    module, colon, name = id.rpartition(":")
    if colon:
        if _package(module) not in (OURS, GYMNASIUM):
            return False
        with suppress(Exception):
            importlib.import_module(module)
    spec = gym.registry.get(name)
    if spec is None:
        return True
    makers = [maker for maker in (spec.entry_point, spec.vector_entry_point) if maker is not None]
    return all(_package(_module_of(maker)) in (OURS, GYMNASIUM) for maker in makers)


def _module_of(maker: Any) -> str:
    return maker.partition(":")[0] if isinstance(maker, str) else str(getattr(maker, "__module__", ""))


def _package(module: str) -> str:
    return module.partition(".")[0]
