"""`rlstages sweep`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlstages.cli.launching import launcher, read_seeds, say
from rlstages.errors import ExitCode, require
from rlstages.experiments.jobs import teller
from rlstages.experiments.sweep import Outcome, claim_sweep, job_of, make_variants, outcome_of, write_sweep_csv
from rlstages.specs.loading import load_factory


def sweep_parameters(
    source: str,
    parameters: Mapping[str, str],
    seeds: str,
    out: Path | None,
    on: str,
    jobs: int | None,
    track: str,
    also: Sequence[str],
    dry_run: bool,
    trust_pickle: bool,
) -> None:
    """Make the runs that are missing, and print how all ended."""
    load_factory(source)
    directory = out if out is not None else Path("runs") / f"sweep-{Path(source).stem}"
    values = {name: [part.strip() for part in text.split(",")] for name, text in parameters.items()}
    for name, parts in values.items():
        require(all(parts), f"-p {name}={parameters[name]}: a value is empty; give NAME=A,B,C.")
    variants = make_variants(source, values, read_seeds(seeds), directory)
    missing = [variant for variant in variants if outcome_of(variant).outcome == "unfinished"]
    work = [job_of(source, variant, track, also, trust_pickle) for variant in missing]
    if dry_run:
        claim_sweep(directory, variants)
        print(*work, sep="\n")
        return
    from rlstages.training.preflight import preflight

    run = launcher(on, jobs)
    for curriculum in {variant.curriculum.digest: variant.curriculum for variant in variants}.values():
        preflight(curriculum, trust_pickle=trust_pickle)
    claim_sweep(directory, variants)
    say(f"{len(work)} of {len(variants)} runs to make.")
    ended = run(work, teller(len(work), say))
    outcomes = [outcome_of(variant) for variant in variants]
    Console().print(_table(outcomes))
    print(f"Written: {write_sweep_csv(directory, outcomes)}")
    if any(one.failure is not None for one in ended):
        sys.exit(ExitCode.FAULT)


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(*outcomes[0].variant.parameters, "seed", "outcome", "steps", "stages", "score")
    for one in outcomes:
        score = "-" if one.score is None else f"{one.measure} {one.score:.3g}"
        row = [one.outcome, f"{one.steps:,}", f"{one.stages} of {len(one.variant.curriculum.stages)}", score]
        table.add_row(*one.variant.parameters.values(), str(one.variant.seed), *row)
    return table
