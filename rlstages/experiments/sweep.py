"""Sweeps over seeds and values of a curriculum's parameters. Each run is an ordinary `rlstages train`."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlstages.environments.scripts import refuse_while_imported
from rlstages.errors import ExitCode, require, require_seed
from rlstages.events import RunFinished, StageFinished
from rlstages.experiments.jobs import Job, launcher_on, printer, teller
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import load_curriculum
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.groups import SWEEP, found
from rlstages.storage.run_directory import read_events, slug
from rlstages.tracking import Extra, Track
from rlstages.training.conditions import require_own_run
from rlstages.training.preflight import preflight

SWEEP_VERSION = 1


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        path: Its directory.
        outcomes: Outcomes of all runs, in the order of values and seeds.
        failures: Why runs that were made now did not come to their end, by the names of their combinations.
        file: `sweep.csv`, with a line for every run.
    """

    path: Path
    outcomes: tuple[Outcome, ...]
    failures: Mapping[str, str]
    file: Path


@dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
        parameters: Parameters of the curriculum's function, as text.
        seed: Seed of the run.
        path: Its run directory.
        curriculum: What it does.
    """

    parameters: Mapping[str, str]
    seed: int
    path: Path
    curriculum: Curriculum

    @property
    def name(self) -> str:
        """Parameters and seed, for the user."""
        return ", ".join([*(f"{key}={value}" for key, value in self.parameters.items()), f"seed {self.seed}"])


@dataclass(frozen=True)
class Outcome:
    """The progress of one run of a sweep.

    Attributes:
        variant: Parameter values and seed of the run.
        outcome: `"reached"`, `"missed"`, or `"unfinished"`.
        steps: Environment steps so far.
        stages: Stages that ended, those that were missed left out.
        score: Score of the policy that left the last finished stage, or `None`.
        measure: `"success"` or `"return"`.
    """

    variant: Combination
    outcome: str
    steps: int
    stages: int
    score: float | None
    measure: str


def sweep(
    source: Path | str,
    values: Mapping[str, Sequence[object]] | None = None,
    *,
    seeds: Sequence[int] = range(5),
    out: Path | str | None = None,
    on: str = "local",
    jobs: int | None = None,
    track: Track = "none",
    track_also: Sequence[Extra] = (),
    console: bool = False,
    trust_pickle: bool = False,
) -> Sweep:
    """Train a curriculum with every combination of seeds and of values of its parameters.

    Each run is an ordinary `rlstages train`, in a process of its own. The same call goes on with a sweep that was
    interrupted.

    Args:
        source: File or name of the curriculum.
        values: For each parameter of its function, the values to try; the runs read them as texts, by its annotation.
        seeds: Each combination of values is run with each.
        out: Sweep's directory; default `runs/sweep-NAME`.
        on: Place of the runs: `"local"`, `"ray"` or `"ray=ADDRESS"`.
        jobs: Runs at a time; `None` for one for each core, or what Ray has room for.
        track: Mode of Weights & Biases, as for `train`.
        track_also: What else it is sent, as in `train`.
        console: Whether to print how far the sweep has come.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.

    Raises:
        InputError: Before the first run, if a combination cannot work, or the directory holds something else.
    """
    refuse_while_imported("sweep")
    for seed in seeds:
        require_seed("A seed of the sweep", seed)
    directory, say, run = sweep_directory(source, out), printer(console), launcher_on(on, jobs)
    variants = make_variants(str(source), values or {}, seeds, directory)
    work = missing_jobs(str(source), variants, track, track_also, trust_pickle)
    for curriculum in {variant.curriculum.digest: variant.curriculum for variant in variants}.values():
        preflight(curriculum, trust_pickle=trust_pickle)
    claim_sweep(directory, variants)
    say(f"{len(work)} of {len(variants)} runs to make.")
    ended = run(work, teller(len(work), say))
    failures = {one.job.name: one.failure for one in ended if one.failure is not None}
    outcomes = tuple(outcome_of(variant) for variant in variants)
    return Sweep(directory, outcomes, failures, write_sweep_csv(directory, outcomes))


def sweep_directory(source: Path | str, out: Path | str | None) -> Path:
    """Return the directory of a sweep: `out`, or one in `runs/`."""
    return Path(out) if out is not None else Path("runs") / f"sweep-{Path(source).stem}"


def make_variants(
    source: str, values: Mapping[str, Sequence[object]], seeds: Sequence[int], directory: Path
) -> list[Combination]:
    """Return every combination of values and seeds.

    Args:
        source: File or name of the curriculum.
        values: For each parameter, its values, which are read as texts.
        seeds: Each combination is run with each.
        directory: Takes the run directories.

    Raises:
        InputError: If a combination cannot be made, or a directory holds a run of something else or of other code.
    """
    variants = []
    for combination in itertools.product(*values.values()):
        parameters = dict(zip(values, map(str, combination), strict=True))
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
        require(other is variant, twice if same else shared, "name-taken", variant.path)
        if (variant.path / "run.json").is_file():
            require_own_run(variant.path, variant.curriculum)
    return variants


def _stem(text: str) -> str:
    """Return the common beginning of a combination's run directory names."""
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


def missing_jobs(
    source: str, variants: Sequence[Combination], track: Track, also: Sequence[Extra], trust_pickle: bool
) -> list[Job]:
    """Return the jobs of the unfinished runs."""
    missing = [variant for variant in variants if outcome_of(variant).outcome == "unfinished"]
    return [_job_of(source, variant, track, also, trust_pickle) for variant in missing]


def _job_of(source: str, variant: Combination, track: Track, also: Sequence[Extra], trust_pickle: bool) -> Job:
    """Return the job that makes or continues a run."""
    arguments = ["train", source]
    for key, value in variant.parameters.items():
        arguments += ["-p", f"{key}={value}"]
    arguments += ["--seed", str(variant.seed), "--out", str(variant.path), "--go-on", "--track", track]
    arguments += [f"--track-{name}" for name in also]
    arguments += ["--trust-pickle"] if trust_pickle else []
    log = variant.path.parent / "logs" / f"{variant.path.name}.txt"
    return Job(variant.name, tuple(arguments), log, completed=(0, ExitCode.MISSED))


def outcome_of(variant: Combination) -> Outcome:
    """Return the progress of a run, read from its directory."""
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
