"""The record of a run in `run.json`: curriculum, versions, and the files of its functions."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import gymnasium as gym

from rlstages.errors import InputError, require, require_int, require_sound
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.references import is_reference, modules_named, reference
from rlstages.specs.serialization import from_data, loads, to_data
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.untrusted import read_bytes

RECORD_VERSION = 1
RECORD = "run.json"
PACKAGES = ["rlstages", "gymnasium", "stable-baselines3", "torch", "numpy", "imitation", "wandb"]
SIMULATORS = ["mujoco", "Box2D", "ale_py", "pybullet", "dm_control", "brax", "pymunk"]
"""Simulators behind the environments of other packages."""
_RUN_ID = r"[A-Za-z0-9_-]{1,64}"
_TAKEN: set[str] = set()
_RUN = "{run}/"


@dataclass(frozen=True)
class RunRecord:
    """The contents of `run.json`.

    Attributes:
        curriculum: What is run; in the file, absolute paths in it start from the run directory.
        seed: Seed of the run.
        run_id: Id of the run everywhere, Weights & Biases included.
        versions: Versions of Python, the important packages and the environments' packages, when the run was made.
        spaces: Observation and action space as JSON data.
        sources: Files that the curriculum's functions come from: module name to path, relative to the run directory.
        digests: SHA-256 of those files that the curriculum's own functions come from, and of those that these import
            from beside them, by module name.
        conditions: Conditions besides the versions on which the last bits of its results depend.
        initial: Run whose final policy this one starts from, as the user named it, or `None`.
        demonstrations: SHA-256 of the demonstrations that it took over from there, or `None`.
        parameters: Those of the curriculum's function that were given, by name, as plain data.
        notes: What Weights & Biases shows as the run's notes, or `None`.
        tags: Run's tags at Weights & Biases.
        origin: Run from which this one starts: its curriculum's `name`, and the `digest` of its final policy.
    """

    curriculum: Curriculum
    seed: int
    run_id: str
    versions: Mapping[str, str]
    spaces: Mapping[str, Any]
    sources: Mapping[str, str]
    digests: Mapping[str, str]
    conditions: Mapping[str, Any]
    initial: str | None = None
    demonstrations: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: str | None = None
    tags: tuple[str, ...] = ()
    origin: Mapping[str, str] | None = None


def write_record(path: Path, record: RunRecord) -> None:
    """Write `run.json`, in one step."""
    content = {"version": RECORD_VERSION, "digest": digest_from(path, record.curriculum)}
    content |= {f.name: to_data(getattr(record, f.name)) for f in fields(record)}
    for name in ("curriculum", "parameters"):
        content[name] = relative_to_run(content[name], path)
    replace_durably(path / RECORD, json.dumps(content, indent=1, allow_nan=False).encode())


def read_record(path: Path) -> RunRecord:
    """Read `run.json` without owning the run.

    Raises:
        InputError: If the path is not a run directory.
    """
    file = path / RECORD
    require(file.is_file(), f"{path} is not a run directory: it has no {RECORD}.", "file-missing", path)
    try:
        data = loads(read_bytes(file))
        version = data["version"]
        sentence = f"it is of version {version!r}, and this rlstages reads version {RECORD_VERSION}."
        require_sound(version == RECORD_VERSION, sentence, name="version")
        curriculum = from_data(absolute_from_run(data["curriculum"], path))
        require_sound(isinstance(curriculum, Curriculum), "it does not hold a curriculum.", name="curriculum")
        record = RunRecord(
            curriculum=cast(Curriculum, curriculum),
            seed=data["seed"],
            run_id=data["run_id"],
            versions=data["versions"],
            spaces=data["spaces"],
            sources=data["sources"],
            digests=data["digests"],
            conditions=data["conditions"],
            initial=data["initial"],
            demonstrations=data.get("demonstrations"),
            parameters=absolute_from_run(data.get("parameters", {}), path),
            notes=data.get("notes"),
            tags=tuple(data.get("tags", ())),
            origin=data.get("origin"),
        )
        _check(record)
        return record
    except InputError as error:
        raise InputError(f"{file} cannot be read: {error}", "file-damaged", file) from error
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{file} is damaged: {type(error).__name__} {error}.", "file-damaged", file) from error


def _check(record: RunRecord) -> None:
    require_int("it", "seed", record.seed, least=0)
    plain = isinstance(record.run_id, str) and re.fullmatch(_RUN_ID, record.run_id)
    require_sound(bool(plain), f"its run_id is {record.run_id!r}.", name="run_id")
    for name in ("versions", "sources", "digests"):
        texts = getattr(record, name)
        whole = isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())
        require_sound(whole, f"its {name} are damaged.", name=name)
    require_sound("rlstages" in record.versions, "its versions are damaged.", name="versions")
    require_sound(set(record.digests) <= set(record.sources), "its digests are damaged.", name="digests")
    require_sound(isinstance(record.conditions, dict), "its conditions are damaged.", name="conditions")
    require_sound(isinstance(record.spaces, dict), "its spaces are damaged.", name="spaces")
    require_sound(
        record.initial is None or isinstance(record.initial, str), "its initial run is damaged.", name="initial"
    )
    shown = record.demonstrations
    require_sound(
        shown is None or isinstance(shown, str), "the digest of its demonstrations is damaged.", name="demonstrations"
    )
    require_sound(isinstance(record.parameters, dict), "its parameters are damaged.", name="parameters")
    require_sound(record.notes is None or isinstance(record.notes, str), "its notes are damaged.", name="notes")
    require_sound(all(isinstance(tag, str) for tag in record.tags), "its tags are damaged.", name="tags")
    origin = record.origin
    named = isinstance(origin, dict) and all(isinstance(origin.get(key), str) for key in ("name", "digest"))
    require_sound(origin is None or named, "its origin is damaged.", name="origin")


def digest_from(path: Path, curriculum: Curriculum) -> str:
    """Return the digest of a curriculum in its form in `run.json`, which is stable if files move with the run."""
    return cast(Curriculum, from_data(relative_to_run(to_data(curriculum), path))).digest


def recorded_digest(path: Path) -> str | None:
    """Return the digest of the curriculum in `run.json`."""
    digest = loads(read_bytes(path / RECORD)).get("digest")
    return str(digest) if digest else None


def new_record(
    curriculum: Curriculum,
    seed: int,
    spaces: Mapping[str, Any],
    conditions: Mapping[str, Any],
    initial: str | None = None,
    demonstrations: str | None = None,
    **noted: Any,
) -> RunRecord:
    """Return the record of a new run, with a new id or the id from an agent of a W&B sweep.

    Args:
        curriculum: What is run.
        seed: Seed of the run.
        spaces: Spaces, as in `RunRecord`.
        conditions: Conditions, as in `RunRecord`.
        initial: Initial policy, as in `RunRecord`.
        demonstrations: Demonstrations, as in `RunRecord`.
        **noted: `parameters`, `notes`, `tags` and `origin`.
    """
    run_id = _agents_id() or secrets.token_hex(4)
    noted["parameters"] = {name: plainly(value) for name, value in noted.get("parameters", {}).items()}
    found = versions(packages_of(modules_behind(curriculum)))
    return RunRecord(curriculum, seed, run_id, found, spaces, {}, {}, conditions, initial, demonstrations, **noted)


def plainly(value: Any) -> Any:
    """Return a parameter's value as plain data, or else its text form."""
    try:
        return to_data(value)
    except InputError:
        return str(value)


def _agents_id() -> str | None:
    """Return the id that a sweep's agent gives to the first run of a process.

    `WANDB_RUN_ID` alone may be a job's, whose runs would mix.
    """
    wanted = os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""
    if not re.fullmatch(_RUN_ID, wanted) or wanted in _TAKEN:
        return None
    _TAKEN.add(wanted)
    return wanted


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions on which a run's results depend, and those of additional packages."""
    found = {"python": platform.python_version()}
    for package in dict.fromkeys((*PACKAGES, *more)):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def modules_behind(curriculum: Curriculum) -> set[str]:
    """Return the modules that a curriculum names, and those of its environments' ids."""
    modules = modules_named(to_data(curriculum))
    for environment in (*(stage.environment for stage in curriculum.stages), *curriculum.held_out):
        entry = None if is_reference(environment.id) else gym.registry.get(environment.id.rpartition(":")[2])
        maker: Any = None if entry is None else entry.entry_point
        if getattr(maker, "__module__", None) == "__main__":
            # The script registers it, and is found again under its own name.
            maker = reference(f"Environment({environment.id!r})", maker)
        if maker is not None:
            modules.add(maker.partition(":")[0] if isinstance(maker, str) else str(getattr(maker, "__module__", "")))
    return modules


def packages_of(modules: Iterable[str]) -> list[str]:
    """Return the installed packages of modules, and the simulators that they have loaded."""
    tops = {module.partition(".")[0] for module in modules} - {"gymnasium", "rlstages", "rlstages_envs"}
    tops |= set(SIMULATORS) & set(sys.modules)
    return sorted({package for top in tops for package in _distributions().get(top, [])})


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the installed packages by module, which reads the file lists of all packages."""
    return metadata.packages_distributions()


def shell_path(path: Path) -> str:
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
