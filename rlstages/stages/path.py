"""The way of a run through its stages: each once, or again where a stage collapsed and the run went back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlstages.events import StageCollapsed, StageFinished, StageStarted
from rlstages.specs.stages.base import StageSpec
from rlstages.stages.runner import Result
from rlstages.storage.checkpoints import sha256
from rlstages.storage.run_directory import slug

Way = tuple[int, ...]
"""The indices of the stages that were entered, in order, the one under way last."""


def way_from(data: Sequence[int], stages: Sequence[StageSpec]) -> Way:
    """Read a way from a checkpoint.

    Raises:
        ValueError: If no run can have gone it.
    """
    way = tuple(data)
    whole = all(type(stage) is int and 0 <= stage < len(stages) for stage in way)
    if not whole or way[:1] not in ((), (0,)) or any(abs(there - here) != 1 for here, there in pairwise(way)):
        raise ValueError("no run can have entered stages in this order")
    return way


def visit_of(way: Way) -> int:
    """Return how often the stage under way was entered."""
    return way.count(way[-1])


def returns_from(way: Way, stage: int) -> int:
    """Return how often the run went back from a stage."""
    return sum(here == stage and there < here for here, there in pairwise(way))


def start_of(stage: StageSpec, visit: int) -> StageStarted:
    """Return what is told when a stage begins."""
    until = stage.until
    return StageStarted(
        kind=type(stage).__name__,
        description=str(stage),
        max_steps=stage.step_limit,
        max_epochs=stage.epoch_limit,
        criterion=None if until is None else str(until),
        threshold=None if until is None else until.summary([])[1],
        visit=visit,
    )


def end_of(
    result: Result,
    stages: Sequence[StageSpec],
    way: Way,
    stage_steps: int,
    seconds: float,
    digest: str,
    parent: str | None,
) -> StageFinished | StageCollapsed:
    """Return what is told when the stage under way ends."""
    common: dict[str, Any] = {
        "reason": result.reason,
        "stage_steps": stage_steps,
        "seconds": round(seconds, 3),
        "policy": policy_file(stages, way),
        "digest": digest,
        "parent": parent,
        "visit": visit_of(way),
    }
    if result.decline is not None:
        return StageCollapsed(back_to=stages[way[-1] - 1].name, decline=result.decline, **common)
    return StageFinished(
        outcome=result.outcome, before=result.before, after=result.after, verdict=result.verdict, **common
    )


def stem_of(stages: Sequence[StageSpec], way: Way) -> str:
    """Return what the files of the stage under way are named after; each visit has a name of its own."""
    stem = f"{way[-1]:02d}-{slug(stages[way[-1]].name)}"
    return stem if visit_of(way) == 1 else f"{stem}-{visit_of(way)}"


def policy_file(stages: Sequence[StageSpec], way: Way) -> str:
    """Return where the policy that leaves the stage under way is kept, relative to the run directory."""
    return f"policies/{stem_of(stages, way)}.safetensors"


def parent_of(run: Path, stages: Sequence[StageSpec], way: Way) -> str | None:
    """Return the digest of the policy that entered the stage under way, or `None` for the first."""
    return sha256((run / policy_file(stages, way[:-1])).read_bytes()) if len(way) > 1 else None
