"""The path of a run through its stages. A stage occurs again if a later one collapsed and the run went back."""

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
"""Indices of the stages that were entered, in order, the current one last."""


def way_from(data: Sequence[int], stages: Sequence[StageSpec]) -> Way:
    """Read a path from a checkpoint.

    Raises:
        ValueError: If no run can have taken this path.
    """
    way = tuple(data)
    whole = all(type(stage) is int and 0 <= stage < len(stages) for stage in way)
    if not whole or way[:1] not in ((), (0,)) or any(abs(there - here) != 1 for here, there in pairwise(way)):
        raise ValueError("no run can have entered stages in this order")
    return way


def visit_of(way: Way) -> int:
    """Return how often the current stage was entered."""
    return way.count(way[-1])


def returns_from(way: Way, stage: int) -> int:
    """Return how often the run went back from the given stage."""
    return sum(here == stage and there < here for here, there in pairwise(way))


def start_of(stage: StageSpec, visit: int) -> StageStarted:
    """Return the event for the start of a stage."""
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
    """Return the event for the end of the current stage."""
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
    """Return the common beginning of the current visit's file names."""
    stem = f"{way[-1]:02d}-{slug(stages[way[-1]].name)}"
    return stem if visit_of(way) == 1 else f"{stem}-{visit_of(way)}"


def policy_file(stages: Sequence[StageSpec], way: Way) -> str:
    """Return the path of the current stage's final policy, relative to the run directory."""
    return f"policies/{stem_of(stages, way)}.safetensors"


def parent_of(run: Path, stages: Sequence[StageSpec], way: Way) -> str | None:
    """Return the digest of the policy that entered the current stage, or `None` for the first stage."""
    return sha256((run / policy_file(stages, way[:-1])).read_bytes()) if len(way) > 1 else None
