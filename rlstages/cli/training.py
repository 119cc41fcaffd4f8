"""`rlstages train` and `rlstages resume`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlstages.errors import ExitCode, InputError, require
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import load_curriculum, load_with_parameters
from rlstages.specs.stages.base import StageSpec
from rlstages.storage.lock import patiently
from rlstages.storage.record import digest_from, read_record, recorded_digest, shell_path
from rlstages.storage.run_directory import clear_unborn
from rlstages.tracking import Extra, Track
from rlstages.tracking.wandb.tracker import place_lines

if TYPE_CHECKING:
    from rlstages.training.trainer import RunResult

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
    """Train and exit with the code that says how it ended."""
    curriculum, given = _load(source, parameters, device)
    # The imports and checks that follow take seconds.
    count = len(curriculum.stages)
    print(f"{curriculum.name}: checking {count} stage{'s' if count > 1 else ''} ...", flush=True)
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.training.start import train

    leave_compiler_out()
    with _stopping_at_once():
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
    _end(result)


def go_on(
    run: Path,
    source: str | None,
    parameters: Mapping[str, str],
    max_steps: int | None,
    force: bool,
    track: Track,
    also: Sequence[Extra],
    trust_pickle: bool,
    trust_imports: bool,
) -> None:
    """Resume and exit with the code that says how it ended."""
    require((run / "run.json").is_file(), f"{run} is not a run directory: it has no run.json.")
    curriculum = None if source is None else load_curriculum(source, parameters)
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.training.start import how_it_ended, resume

    leave_compiler_out()
    had_ended = max_steps is None and how_it_ended(run) is not None
    with _stopping_at_once():
        result = resume(
            run,
            max_steps=max_steps,
            force=force,
            track=track,
            track_also=also,
            console=True,
            curriculum=curriculum,
            trust_pickle=trust_pickle,
            trust_imports=trust_imports,
        )
    if had_ended:
        print(result.reason)
    _end(result)


@contextmanager
def _stopping_at_once() -> Iterator[None]:
    """Say what a second Ctrl-C costs; typer would say nothing."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped at once; what came after the last checkpoint is lost.", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)


def go_on_with(
    run: Path | None,
    source: str,
    parameters: Mapping[str, str],
    seed: int,
    device: str | None,
    track: Track,
    also: Sequence[Extra],
    trust_pickle: bool,
) -> None:
    """Go on with a run of this curriculum and seed, and exit; return if there is none yet."""
    if run is None:
        raise InputError("--go-on needs --out: the run directory to go on with.")
    if not (run / "run.json").is_file():
        clear_unborn(run)
        return
    same = recorded_digest(run) == digest_from(run, _load(source, parameters, device)[0])
    require(
        same and read_record(run).seed == seed, f"{run} is a run of another curriculum or seed; give another --out."
    )
    patiently(lambda: go_on(run, source, parameters, None, False, track, also, trust_pickle, False))


def _load(source: str, parameters: Mapping[str, str], device: str | None) -> tuple[Curriculum, dict[str, Any]]:
    curriculum, given = load_with_parameters(source, parameters)
    if device is not None:
        curriculum = replace(curriculum, agent=replace(curriculum.agent, device=device))
    return curriculum, given


def what_next(outcome: str, run: Path, stage: StageSpec | None) -> list[str]:
    """Return how a run goes on that has not reached its end, in at most one line.

    Args:
        outcome: As `RunFinished` says, or `"unfinished"` where a log ends without it.
        run: Its directory.
        stage: Of a missed threshold, the stage that missed it.
    """
    command = f"rlstages resume {shell_path(run)}"
    if outcome == "missed" and stage is not None:
        return [stage.remedy if stage.step_limit is None else f"Give it more: {command} --max-steps N"]
    if outcome == "unfinished":
        return [f"If nothing trains it any more, it goes on from its last checkpoint: {command}"]
    return [] if outcome == "reached" else [f"Go on: {command}"]


def _end(result: RunResult) -> None:
    """Exit with the code that says how a run ended; why it did, the console has just said."""
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
