"""The same curriculum with several seeds and values of its parameters, each run an ordinary `rlstages train`."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlstages.errors import ExitCode, require
from rlstages.events import RunFinished, StageFinished
from rlstages.experiments.jobs import Job
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import load_curriculum
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.groups import SWEEP, found
from rlstages.storage.run_directory import read_events, slug
from rlstages.training.resuming import require_own_run

SWEEP_VERSION = 1


@dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
        parameters: Of the curriculum's function, as text.
        seed: Of the run.
        path: Its run directory.
        curriculum: What it does.
    """

    parameters: Mapping[str, str]
    seed: int
    path: Path
    curriculum: Curriculum

    @property
    def name(self) -> str:
        """Parameters and seed, for a person."""
        return ", ".join([*(f"{key}={value}" for key, value in self.parameters.items()), f"seed {self.seed}"])


@dataclass(frozen=True)
class Outcome:
    """How far a run of a sweep has come.

    Attributes:
        variant: Which.
        outcome: `"reached"`, `"missed"`, or `"unfinished"`.
        steps: Environment steps so far.
        stages: Stages that ended, those that were missed left out.
        score: Of the policy that left the last finished stage, or `None`.
        measure: `"success"` or `"return"`.
    """

    variant: Combination
    outcome: str
    steps: int
    stages: int
    score: float | None
    measure: str


def make_variants(
    source: str, values: Mapping[str, Sequence[str]], seeds: Sequence[int], directory: Path
) -> list[Combination]:
    """Return every combination of values and seeds.

    Args:
        source: File or name of the curriculum.
        values: For each parameter, its values as text.
        seeds: Each combination is run with each.
        directory: Takes the run directories.

    Raises:
        InputError: If a combination cannot be made, or a directory holds a run of something else or of other code.
    """
    variants = []
    for combination in itertools.product(*values.values()):
        parameters = dict(zip(values, combination, strict=True))
        curriculum = load_curriculum(source, parameters)
        stem = _stem("-".join([curriculum.name, *(f"{key}={value}" for key, value in parameters.items())]))
        for seed in seeds:
            variants.append(Combination(parameters, seed, directory / f"{stem}-s{seed}", curriculum))
    taken: dict[Path, Combination] = {}
    for variant in variants:
        other = taken.setdefault(variant.path, variant)
        same = other.parameters == variant.parameters
        twice = "Two runs of the sweep are the same; give each value and each seed once."
        shared = f"{other.name} and {variant.name} would share the directory {variant.path}; give them to two sweeps."
        require(other is variant, twice if same else shared)
        if (variant.path / "run.json").is_file():
            require_own_run(variant.path, variant.curriculum)
    return variants


def _stem(text: str) -> str:
    """Return what the names of the run directories of a combination begin with."""
    whole, cut = slug(text, most=None), slug(text)
    if whole == cut:
        return cut
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{slug(text, most=91)}-{digest}"


def claim_sweep(directory: Path, variants: Sequence[Combination]) -> None:
    """Make the directory of a sweep, with the file that says so, or go on with it.

    Raises:
        InputError: If it cannot be written.
    """
    name = variants[0].curriculum.name
    found(directory, SWEEP, {"version": SWEEP_VERSION, "name": name}, f"sweep-{slug(name)}")


def job_of(source: str, variant: Combination, track: str, also: Sequence[str], trust_pickle: bool) -> Job:
    """Return the command that makes a run, or goes on with it."""
    arguments = ["train", source]
    for key, value in variant.parameters.items():
        arguments += ["-p", f"{key}={value}"]
    arguments += ["--seed", str(variant.seed), "--out", str(variant.path), "--go-on", "--track", track]
    arguments += [f"--track-{name}" for name in also]
    arguments += ["--trust-pickle"] if trust_pickle else []
    log = variant.path.parent / "logs" / f"{variant.path.name}.txt"
    return Job(variant.name, tuple(arguments), log, completed=(0, ExitCode.MISSED))


def outcome_of(variant: Combination) -> Outcome:
    """Read from its directory how far a run has come."""
    outcome, steps = "unfinished", 0
    ends: dict[str, StageFinished] = {}
    for event in read_events(variant.path):
        steps = event.global_step
        if isinstance(event.payload, StageFinished):
            # A stage that the run went back to ends again, and its last end is put last.
            ends.pop(event.stage_name, None)
            ends[event.stage_name] = event.payload
        over = isinstance(event.payload, RunFinished) and event.payload.outcome in ("reached", "missed")
        outcome = event.payload.outcome if over and isinstance(event.payload, RunFinished) else "unfinished"
    after = list(ends.values())[-1].after if ends else None
    measure = "return" if after is None or after.success is None else "success"
    value = None if after is None else after.mean_return if after.success is None else after.success
    return Outcome(variant, outcome, steps, sum(end.outcome != "missed" for end in ends.values()), value, measure)


def write_sweep_csv(directory: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write `sweep.csv`, a line for every run."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    parameters = list(outcomes[0].variant.parameters)
    lines.writerow([*parameters, "seed", "outcome", "steps", "stages", "measure", "score", "run"])
    for one in outcomes:
        values = [one.variant.parameters[name] for name in parameters]
        found = [one.outcome, one.steps, one.stages, one.measure, one.score, one.variant.path.name]
        lines.writerow([*values, one.variant.seed, *found])
    file = directory / "sweep.csv"
    replace_durably(file, text.getvalue().encode())
    return file
