"""What artifacts are called at Weights & Biases, so that the runs that start from another run's find them there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rlstages.errors import InputError
from rlstages.events import StageFinished
from rlstages.specs.stages.base import StageSpec
from rlstages.storage.record import RunRecord, read_record
from rlstages.storage.run_directory import read_events

FINAL = "final"
_TAKEN = re.compile(rf"latest|{FINAL}|v\d+")
_MOST = 128


def collection(curriculum: str, kind: str) -> str:
    """Return the name of the artifact that all policies, or all demonstrations, of a curriculum are versions of."""
    return f"{_plain(curriculum)[: _MOST - len(kind) - 1]}-{kind}"


def stage_alias(stage: str) -> str:
    """Return the alias of what a stage has left; words that W&B or this package use themselves are set apart."""
    alias = _plain(stage)[:_MOST]
    return f"stage-{alias}" if _TAKEN.fullmatch(alias) else alias


def digest_alias(digest: str) -> str:
    """Return the alias that tells one file from all others."""
    return f"sha256-{digest[:16]}"


def policies_used(record: RunRecord, here: Path) -> Iterator[str]:
    """Return the policies of other runs that a run is made from, as W&B names them: its origin, and its experts.

    Args:
        record: What the run's `run.json` says.
        here: Where the relative paths of experts start.
    """
    if record.origin is not None:
        yield _policy(record.origin["name"], record.origin["digest"])
    for run in (here / source for source in _expert_runs(record.curriculum.stages)):
        try:
            finished = [event.payload for event in read_events(run) if isinstance(event.payload, StageFinished)]
            name = read_record(run).curriculum.name
        except (InputError, OSError):
            continue
        if finished:
            yield _policy(name, finished[-1].digest)


def _policy(curriculum: str, digest: str) -> str:
    return f"{collection(curriculum, 'policy')}:{digest_alias(digest)}"


def _expert_runs(stages: tuple[StageSpec, ...]) -> Iterator[str]:
    for stage in stages:
        yield from (expert.source for expert in stage.experts if expert.kind == "run")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
