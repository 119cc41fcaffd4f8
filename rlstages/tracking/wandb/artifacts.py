"""A run's policies and demonstrations as W&B artifacts, and what they were made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlstages.errors import reason_of
from rlstages.events import DemonstrationsReady, Event, RunFinished, StageCollapsed, StageFinished, StageStarted
from rlstages.events.privacy import without_paths
from rlstages.specs.serialization import to_data
from rlstages.storage.record import RunRecord
from rlstages.tracking.state import RunState
from rlstages.tracking.wandb.lineage import FINAL, collection, digest_alias, policies_used, stage_alias

_SECONDS = 10
_TYPES = {"policy": "model", "demonstrations": "dataset", "code": "code"}
_ENDS = ("reached", "missed", "paused")


class Artifacts:
    """Gives a W&B run its files: each kind is one artifact of the curriculum, each stage's file a version of it.

    A policy waits for the next event that tells whether it is the run's last, as offline no alias can follow later.

    Args:
        run: W&B's.
        state: Follows the events before this does.
        run_id: Of the run.
        record: What `run.json` says, if there is one.
        online: Whether W&B knows what other runs have given it.
        warn: Takes one sentence for a person.
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
        self._waiting: tuple[StageFinished | StageCollapsed, str] | None = None
        self._online = self._edges = online

    def take(self, event: Event) -> None:
        """Take one event."""
        payload = event.payload
        if isinstance(payload, DemonstrationsReady):
            self._add_demonstrations(payload, event.stage_name)
        elif isinstance(payload, (StageFinished, StageCollapsed)):
            self.release()
            self._waiting = payload, event.stage_name
        elif isinstance(payload, StageStarted):
            self.release()
        elif isinstance(payload, RunFinished):
            self.release(final=payload.outcome in _ENDS)

    def release(self, final: bool = False) -> None:
        """Add the policy that waits, if there is one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._add_policy(*waiting, final)

    def use_other_runs(self, here: Path) -> None:
        """Draw the edges from the policies of other runs that this one is made from; what W&B lacks has none."""
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

    def _add_demonstrations(self, shown: DemonstrationsReady, stage: str) -> None:
        about = {
            "digest": shown.digest,
            "parent": None,
            "stage": stage,
            "source": shown.source,
            "score": to_data(shown.score, nan_as_null=True),
            "held_out_episodes": shown.held_out_episodes,
        }
        self._add_own(shown.file, "demonstrations", about, [])

    def _add_policy(self, ended: StageFinished | StageCollapsed, stage: str, final: bool) -> None:
        about: dict[str, Any] = {"digest": ended.digest, "parent": ended.parent, "stage": stage, "visit": ended.visit}
        if self._record is not None and self._record.origin is not None and ended.parent is None:
            about["parent"] = self._record.origin["digest"]
        if isinstance(ended, StageCollapsed):
            about |= {"outcome": "collapsed", "decline": to_data(ended.decline, nan_as_null=True)}
        else:
            about |= {
                "outcome": ended.outcome,
                "score": to_data(ended.after, nan_as_null=True),
                "verdict": to_data(ended.verdict, nan_as_null=True),
            }
        self._use(ended.parent)
        self._add_own(ended.policy, "policy", about, [about["outcome"], *([FINAL] if final else [])])

    def _add_own(self, file: str, kind: str, about: dict[str, Any], aliases: list[str]) -> None:
        path = Path(file)
        if not path.is_file() or not path.resolve().is_relative_to(Path.cwd()):
            self._warn(f"W&B gets no {kind} of stage {about['stage']!r}: there is no file {path.name}.")
            return
        own = [stage_alias(about["stage"]), digest_alias(about["digest"])]
        artifact = self._add({path.name: file}, kind, about, [*own, *aliases])
        if artifact is not None:
            self._logged[about["digest"]] = artifact

    def _add(self, files: Mapping[str, str], kind: str, about: dict[str, Any], aliases: list[str]) -> Any:
        """Add files by their names in the artifact; return it, or `None` where W&B refuses."""
        import wandb

        name = collection(self._state.curriculum.name, kind)
        artifact = wandb.Artifact(name, type=_TYPES[kind], metadata=without_paths({**about, "run": self._run_id}))
        try:
            for inside, file in files.items():
                # The file stays where it is and as it is: no copy in W&B's staging area or cache.
                artifact.add_file(file, name=inside, policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact, aliases=["latest", *aliases])
        except Exception as error:
            # Such as a name that the project has for something else: the points are worth more than the file.
            self._warn(f"W&B gets no {kind} of stage {about['stage']!r} ({without_paths(reason_of(error))}).")
            return None
        return artifact

    def _use(self, digest: str | None) -> None:
        """Draw the edge from an artifact of this session to what is made from it; metadata name the parent anyway."""
        parent = self._logged.get(digest or "")
        if not self._edges or parent is None:
            return
        try:
            parent.wait(timeout=_SECONDS)
            self._run.use_artifact(parent)
        except Exception:
            self._edges = False
