"""`rlstages resume`, and `rlstages train --go-on`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlstages.cli.training import end_with, load_for, stopping_at_once
from rlstages.errors import InputError, require
from rlstages.specs.loading import load_curriculum
from rlstages.storage.lock import patiently
from rlstages.storage.record import digest_from, read_record, recorded_digest
from rlstages.storage.run_directory import clear_unborn
from rlstages.tracking import Extra, Track


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
    """Resume a run, and exit with the code of its outcome."""
    require((run / "run.json").is_file(), f"{run} is not a run directory: it has no run.json.", "file-missing", run)
    curriculum = None if source is None else load_curriculum(source, parameters)
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.training.resuming import how_it_ended, resume

    leave_compiler_out()
    had_ended = max_steps is None and how_it_ended(run) is not None
    with stopping_at_once():
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
    end_with(result)


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
    """Resume a run of this curriculum and seed, and exit; return if there is none yet."""
    if run is None:
        raise InputError("--go-on needs --out: the run directory to go on with.", "option-invalid", name="--go-on")
    if not (run / "run.json").is_file():
        clear_unborn(run)
        return
    same = recorded_digest(run) == digest_from(run, load_for(source, parameters, device)[0])
    sentence = f"{run} is a run of another curriculum or seed; give another --out."
    require(same and read_record(run).seed == seed, sentence, "out-taken", run)
    patiently(lambda: go_on(run, source, parameters, None, False, track, also, trust_pickle, False))
