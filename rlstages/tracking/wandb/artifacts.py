"""W&B artifacts of a run's files, with their names and their lineage."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlstages.errors import InputError, reason_of
from rlstages.events import Event
from rlstages.events.payload import LeftFile
from rlstages.events.privacy import without_paths
from rlstages.specs.serialization import to_data
from rlstages.specs.stages.base import StageSpec
from rlstages.storage.record import RunRecord, read_record
from rlstages.storage.run_directory import read_events
from rlstages.tracking.state import RunState

_SECONDS = 10
_TYPES = {"policy": "model", "demonstrations": "dataset", "code": "code"}
FINAL = "final"
_TAKEN = re.compile(rf"latest|{FINAL}|v\d+")
_MOST = 128


class Artifacts:
    """Gives a W&B run its files: each kind is one artifact of the curriculum, each stage's file a version of it.

    A policy waits for the next event that tells whether it is the run's last, as offline no alias can follow later.

    Args:
        run: W&B's.
        state: Follows the events before this does.
        run_id: Id of the run.
        record: What `run.json` says, if there is one.
        online: Whether W&B knows what other runs have given it.
        warn: Function that takes one sentence for the user.
    """

    def __init__(
        self,
        run: Any,
        state: RunState,
        run_id: str,
        record: RunRecord | None,
        online: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._run, self._state, self._run_id, self._record, self._warn = run, state, run_id, record, warn
        self._logged: dict[str, Any] = {}
        self._waiting: tuple[LeftFile, str] | None = None
        self._online = self._edges = online

    def take(self, event: Event) -> None:
        """Take one event."""
        left = event.payload.leaves()
        if left is None:
            return
        if left.kind == "policy":
            self.release()
            self._waiting = left, event.stage_name
        else:
            self._add_own(left, event.stage_name)

    def release(self, final: bool = False) -> None:
        """Add the policy that waits, if there is one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            left, stage = waiting
            self._use(left.parent)
            self._add_own(left, stage, [left.about.get("outcome", ""), FINAL if final else ""])

    def use_other_runs(self, here: Path) -> None:
        """Link this run to the policies of other runs from which it is made, as far as W&B has them."""
        for name in policies_used(self._record, here) if self._online and self._record is not None else ():
            try:
                self._run.use_artifact(name)
            except Exception:
                continue

    def add_code(self, files: Sequence[str]) -> None:
        """Add the files of the curriculum."""
        if files:
            top = os.path.commonpath([os.path.dirname(file) for file in files])
            named = {os.path.relpath(file, top): os.path.relpath(file) for file in files}
            self._add(named, "code", {"stage": "every"}, [])

    def _add_own(self, left: LeftFile, stage: str, aliases: Sequence[str] = ()) -> None:
        path = Path(left.path)
        if not path.is_file() or not path.resolve().is_relative_to(Path.cwd()):
            self._warn(f"W&B gets no {left.kind} of stage {stage!r}: there is no file {path.name}.")
            return
        origin = None if self._record is None else self._record.origin
        begun_from = origin["digest"] if origin is not None and left.kind == "policy" else None
        about = {"digest": left.digest, "parent": left.parent or begun_from, "stage": stage}
        about |= to_data(left.about, nan_as_null=True)
        own = [stage_alias(stage), digest_alias(left.digest)]
        artifact = self._add({path.name: left.path}, left.kind, about, [*own, *filter(None, aliases)])
        if artifact is not None:
            self._logged[left.digest] = artifact

    def _add(self, files: Mapping[str, str], kind: str, about: dict[str, Any], aliases: list[str]) -> Any:
        """Add files to an artifact by name; return the artifact, or `None` if W&B refuses it."""
        import wandb

        name = collection(self._state.curriculum.name, kind)
        metadata = without_paths({**about, "run": self._run_id})
        artifact = wandb.Artifact(name, type=_TYPES.get(kind, kind), metadata=metadata)
        try:
            for inside, file in files.items():
                # The file stays where it is and as it is: no environment in W&B's staging area or cache.
                artifact.add_file(file, name=inside, policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact, aliases=["latest", *aliases])
        except Exception as error:
            # Such as a name that the project has for something else: the points are worth more than the file.
            self._warn(f"W&B gets no {kind} of stage {about['stage']!r} ({without_paths(reason_of(error))}).")
            return None
        return artifact

    def _use(self, digest: str | None) -> None:
        """Link an artifact of this session to what is made from it. The metadata name the parent in any case."""
        parent = self._logged.get(digest or "")
        if not self._edges or parent is None:
            return
        try:
            parent.wait(timeout=_SECONDS)
            self._run.use_artifact(parent)
        except Exception:
            self._edges = False


def collection(curriculum: str, kind: str) -> str:
    """Return the name of the artifact whose versions are all policies, or all demonstrations, of a curriculum."""
    return f"{_plain(curriculum)[: _MOST - len(kind) - 1]}-{kind}"


def stage_alias(stage: str) -> str:
    """Return the alias for the file of a stage, which avoids words that W&B or this package use."""
    alias = _plain(stage)[:_MOST]
    return f"stage-{alias}" if _TAKEN.fullmatch(alias) else alias


def digest_alias(digest: str) -> str:
    """Return the alias that identifies a file."""
    return f"sha256-{digest[:16]}"


def policies_used(record: RunRecord, here: Path) -> Iterator[str]:
    """Return the policies of other runs that a run is made from, as W&B names them: its origin, and its experts.

    Args:
        record: What the run's `run.json` says.
        here: Directory to which the paths of experts are relative.
    """
    if record.origin is not None:
        yield _policy(record.origin["name"], record.origin["digest"])
    for run in (here / source for source in _expert_runs(record.curriculum.stages)):
        try:
            curriculum = read_record(run).curriculum
            ends = RunState(curriculum, read_events(run)).ends.values()
        except (InputError, OSError):
            continue
        finished = [end.digest for end in ends if end.outcome != "collapsed"]
        if finished:
            yield _policy(curriculum.name, finished[-1])


def _policy(curriculum: str, digest: str) -> str:
    return f"{collection(curriculum, 'policy')}:{digest_alias(digest)}"


def _expert_runs(stages: tuple[StageSpec, ...]) -> Iterator[str]:
    for stage in stages:
        yield from (expert.source for expert in stage.experts if expert.kind == "run")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
