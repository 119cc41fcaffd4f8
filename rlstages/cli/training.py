"""`rlstages train`, and how a run's end is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlstages.errors import ExitCode
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import load_with_parameters
from rlstages.specs.stages.base import StageSpec
from rlstages.storage.record import read_record, shell_path
from rlstages.tracking import Extra, Track
from rlstages.tracking.wandb.tracker import place_lines

if TYPE_CHECKING:
    from rlstages.training.session import RunResult

_CODES = {"reached": 0, "missed": ExitCode.MISSED, "interrupted": ExitCode.INTERRUPTED}


def start_training(
    source: str,
    parameters: Mapping[str, str],
    seed: int,
    out: Path | None,
    device: str | None,
    track: Track,
    also: Sequence[Extra],
    notes: str | None,
    tags: Sequence[str],
    initial: Path | None,
    trust_pickle: bool,
) -> None:
    """Train, and exit with the code of the outcome."""
    curriculum, given = load_for(source, parameters, device)
    # The imports and checks that follow take seconds.
    count = len(curriculum.stages)
    print(f"{curriculum.name}: checking {count} stage{'s' if count > 1 else ''} ...", flush=True)
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.training.start import train

    leave_compiler_out()
    with stopping_at_once():
        result = train(
            curriculum,
            seed=seed,
            out=out,
            initial=initial,
            parameters=given,
            track=track,
            track_also=also,
            notes=notes,
            tags=tags,
            console=True,
            trust_pickle=trust_pickle,
        )
    end_with(result)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Print what a second Ctrl-C costs, because typer prints nothing."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped at once; what came after the last checkpoint is lost.", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)


def load_for(source: str, parameters: Mapping[str, str], device: str | None) -> tuple[Curriculum, dict[str, Any]]:
    """Return a curriculum for the given device, and the values of its parameters."""
    curriculum, given = load_with_parameters(source, parameters)
    if device is not None:
        curriculum = replace(curriculum, agent=replace(curriculum.agent, device=device))
    return curriculum, given


def what_next(outcome: str, run: Path, stage: StageSpec | None) -> list[str]:
    """Return how to continue an unfinished run, in at most one line.

    Args:
        outcome: Outcome in `RunFinished`, or `"unfinished"` if a log ends without it.
        run: Its directory.
        stage: Stage that missed its threshold, if one did.
    """
    command = f"rlstages resume {shell_path(run)}"
    if outcome == "missed" and stage is not None:
        return [stage.remedy if stage.step_limit is None else f"Give it more: {command} --max-steps N"]
    if outcome == "unfinished":
        return [f"If nothing trains it any more, it goes on from its last checkpoint: {command}"]
    return [] if outcome == "reached" else [f"Go on: {command}"]


def end_with(result: RunResult) -> None:
    """Exit with the code of a run's outcome; the console has already printed the reason."""
    stages = {stage.name: stage for stage in read_record(result.path).curriculum.stages}
    stage = stages[list(result.stages)[-1]] if result.outcome == "missed" else None
    lines = [
        f"Run directory: {result.path}",
        *what_next(result.outcome, result.path, stage),
        *place_lines(result.path),
    ]
    try:
        print(*lines, sep="\n", flush=True)
    except OSError:
        # The terminal is closed. The exit code still says how it ended, and nothing is left to be written at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_CODES[result.outcome])
