"""`rlstages sweep`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlstages.cli.launching import read_seeds
from rlstages.errors import ExitCode, require
from rlstages.experiments.sweep import Outcome, claim_sweep, make_variants, missing_jobs, sweep, sweep_directory
from rlstages.specs.loading import load_factory
from rlstages.tracking import Extra, Track


def sweep_parameters(
    source: str,
    parameters: Mapping[str, str],
    seeds: str,
    out: Path | None,
    on: str,
    jobs: int | None,
    track: Track,
    also: Sequence[Extra],
    dry_run: bool,
    trust_pickle: bool,
) -> None:
    """Make the missing runs, and print the outcomes of all."""
    load_factory(source)
    values = {name: [part.strip() for part in text.split(",")] for name, text in parameters.items()}
    for name, parts in values.items():
        sentence = f"-p {name}={parameters[name]}: a value is empty; give NAME=A,B,C."
        require(all(parts), sentence, "option-invalid", name="-p", value=parameters[name])
    numbers = read_seeds(seeds)
    if dry_run:
        directory = sweep_directory(source, out)
        variants = make_variants(source, values, numbers, directory)
        work = missing_jobs(source, variants, track, also, trust_pickle)
        claim_sweep(directory, variants)
        print(*work, sep="\n")
        return
    done = sweep(
        source,
        values,
        seeds=numbers,
        out=out,
        on=on,
        jobs=jobs,
        track=track,
        track_also=also,
        console=True,
        trust_pickle=trust_pickle,
    )
    Console().print(_table(done.outcomes))
    print(f"Written: {done.file}")
    if done.failures:
        sys.exit(ExitCode.FAULT)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(*outcomes[0].variant.parameters, "seed", "outcome", "steps", "stages", "score")
    for one in outcomes:
        score = "-" if one.score is None else f"{one.measure} {one.score:.3g}"
        row = [one.outcome, f"{one.steps:,}", f"{one.stages} of {len(one.variant.curriculum.stages)}", score]
        table.add_row(*one.variant.parameters.values(), str(one.variant.seed), *row)
    return table
