"""The commands and their options; what they do lies in the modules they import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from rlstages.cli.demos import demos
from rlstages.cli.options import (
    DryRun,
    Episodes,
    From,
    Jobs,
    Json,
    OfRun,
    On,
    Parameters,
    Run,
    Seeds,
    Source,
    TrackCode,
    Tracking,
    TrackSystem,
    TrustImports,
    TrustPickle,
    also_sent,
    pairs,
    parameter,
)
from rlstages.errors import require

app = typer.Typer(
    help="Staged reinforcement learning: clone an expert, then fine-tune the same network on harder environments.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(demos, name="demos")


@app.command("train", context_settings={"ignore_unknown_options": True})
def train_command(
    source: Source,
    more: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[NAME=VALUE]...", help="Parameters like those of -p, also as --NAME=VALUE, for 'wandb agent'."
        ),
    ] = None,
    parameters: Parameters = None,
    seed: Annotated[int, typer.Option(help="Random seed of the run.", min=0)] = 0,
    out: Annotated[Optional[Path], typer.Option(help="New run directory. Default: an unused name in runs/.")] = None,  # noqa: UP045
    device: Annotated[Optional[str], typer.Option(help="Torch device: cpu, cuda, cuda:1, mps or auto.")] = None,  # noqa: UP045
    track: Tracking = "auto",
    track_system: TrackSystem = False,
    track_code: TrackCode = False,
    notes: Annotated[Optional[str], typer.Option(help="Notes of the run at Weights & Biases.")] = None,  # noqa: UP045
    tag: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Tag of the run at Weights & Biases; repeatable."),
    ] = None,
    from_run: From = None,
    go_on: Annotated[
        bool, typer.Option("--go-on", help="Resume the run in --out if there is one, for schedulers that restart jobs.")
    ] = False,
    trust_pickle: TrustPickle = False,
) -> None:
    """Train a curriculum from its first stage."""
    from rlstages.cli.resuming import go_on_with
    from rlstages.cli.training import start_training

    given, also = pairs([*(parameters or []), *map(parameter, more or [])]), also_sent(track_system, track_code)
    if go_on:
        go_on_with(out, source, given, seed, device, track, also, trust_pickle)
    start_training(source, given, seed, out, device, track, also, notes, tag or [], from_run, trust_pickle)


@app.command("resume")
def resume_command(
    run: Run,
    source: OfRun = None,
    parameters: Parameters = None,
    max_steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Larger step limit for the stage in which the run stopped.", min=1),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Resume even though files of the curriculum have changed.")
    ] = False,
    track: Tracking = "auto",
    track_system: TrackSystem = False,
    track_code: TrackCode = False,
    trust_pickle: TrustPickle = False,
    trust_imports: TrustImports = False,
) -> None:
    """Continue a run that was interrupted, crashed, or missed a threshold."""
    from rlstages.cli.resuming import go_on

    also = also_sent(track_system, track_code)
    go_on(run, source, pairs(parameters), max_steps, force, track, also, trust_pickle, trust_imports)


@app.command("show")
def show_command(
    source: Annotated[
        str,
        typer.Argument(
            help="A curriculum (a Python file, or a name that 'rlstages curricula' lists), or a run directory."
        ),
    ],
    parameters: Parameters = None,
    from_run: From = None,
    json: Json = False,
    trust_pickle: TrustPickle = False,
) -> None:
    """Print and check a curriculum's plan, or print the progress of a run; nothing is trained."""
    from rlstages.cli.showing import refuse_directory, show_curriculum, show_run

    if (Path(source) / "run.json").is_file():
        sentence = f"{source} is a run; --from is for a curriculum that is to start from one."
        require(from_run is None, sentence, "option-invalid", name="--from", value=from_run)
        show_run(Path(source), json)
    else:
        refuse_directory(source)
        show_curriculum(source, pairs(parameters), from_run, json, trust_pickle)


@app.command()
def curricula() -> None:
    """List the named curricula and their parameters."""
    from rlstages.cli.showing import list_curricula

    list_curricula()


@app.command("settings")
def settings_command(json: Json = False) -> None:
    """List every setting of agents, algorithms and stages, with its default, range and meaning."""
    from rlstages.cli.settings import settings_page, settings_schema
    from rlstages.specs.serialization import dumps

    print(dumps(settings_schema()) if json else settings_page(), end="\n" if json else "")


@app.command("evaluate")
def evaluate_command(
    run: Run,
    source: OfRun = None,
    parameters: Parameters = None,
    episodes: Episodes = 100,
    seed: Annotated[int, typer.Option(help="Random seed of the episodes.", min=0)] = 1_000_000,
    json: Json = False,
    trust_imports: TrustImports = False,
) -> None:
    """Score a run's final policy in every environment of its curriculum."""
    from rlstages.cli.showing import evaluate_policy

    evaluate_policy(run, source, pairs(parameters), episodes, seed, json, trust_imports)


@app.command("export")
def export_command(
    run: Run,
    out: Annotated[Path, typer.Option(help="File to write.")],
    form: Annotated[
        Optional[Literal["sb3", "safetensors"]],  # noqa: UP045
        typer.Option("--format", help="A stable-baselines3 zip, or plain weights. Default: by the ending of --out."),
    ] = None,
) -> None:
    """Write a run's final policy to a file."""
    from rlstages.cli.exporting import export_policy

    export_policy(run, out, form)


@app.command("track")
def track_command(
    run: Run,
    mode: Annotated[
        Literal["auto", "online", "offline"],
        typer.Option(help="Where to write. auto: online if a key is configured, else offline."),
    ] = "auto",
    project: Annotated[Optional[str], typer.Option(help="Project at Weights & Biases. Default: rlstages.")] = None,  # noqa: UP045
) -> None:
    """Upload what Weights & Biases is missing of a finished or interrupted run."""
    from rlstages.cli.tracking import track_run

    track_run(run, mode, project)


@app.command("compare")
def compare_command(
    source: Source,
    parameters: Parameters = None,
    seeds: Seeds = "0:5",
    arms: Annotated[Optional[str], typer.Option(help="Names of arms, separated by commas. Default: all.")] = None,  # noqa: UP045
    arm: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="'NAME: P=V'", help="Additional arm with other parameters of the curriculum; repeatable."),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Environment steps of every run. Default: the most that a run of the curriculum needs.", min=1
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes for a final score.", min=4)] = 200,
    out: Annotated[Optional[Path], typer.Option(help="Directory to make. Default: runs/compare-NAME.")] = None,  # noqa: UP045
    on: On = "local",
    jobs: Jobs = None,
    track: Tracking = "auto",
    track_system: TrackSystem = False,
    track_code: TrackCode = False,
    dry_run: DryRun = False,
    trust_pickle: TrustPickle = False,
) -> None:
    """Train a curriculum and its ablations at equal cost, and report which one wins.

    Given again, the command continues an interrupted comparison, or adds seeds or arms to a finished one.
    """
    from rlstages.cli.comparing import compare_arms, load_plan, print_jobs
    from rlstages.cli.launching import read_seeds

    if not dry_run:
        print(f"{source}: checking the arms ...", flush=True)
    plan = load_plan(
        source,
        pairs(parameters),
        None if arms is None else [name.strip() for name in arms.split(",")],
        arm or [],
        seeds=read_seeds(seeds),
        steps=steps,
        episodes=episodes,
        track=track,
        track_also=also_sent(track_system, track_code),
        trust_pickle=trust_pickle,
    )
    if dry_run:
        print_jobs(plan, out)
    else:
        compare_arms(plan, out, on, jobs)


@app.command("compare-run")
def compare_run_command(
    plan: Annotated[Path, typer.Argument(help="File plan-ID.json in the comparison's directory.")],
    run: Annotated[str, typer.Option(metavar="ARM/SEED", help="Arm and seed of the run.")],
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Environment steps to spend. Default: as many as its stages take.", min=1),
    ] = None,
    trust_imports: TrustImports = False,
) -> None:
    """Make or continue one run of a comparison; 'rlstages compare --dry-run' prints these commands."""
    from rlstages.cli.comparing import run_one

    run_one(plan, run, steps, trust_imports)


@app.command("sweep")
def sweep_command(
    source: Source,
    parameters: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("-p", "--parameter", metavar="NAME=A,B,C", help="Values of a parameter; repeatable."),
    ] = None,
    seeds: Seeds = "0:5",
    out: Annotated[Optional[Path], typer.Option(help="Directory of the runs. Default: runs/sweep-NAME.")] = None,  # noqa: UP045
    on: On = "local",
    jobs: Jobs = None,
    track: Tracking = "auto",
    track_system: TrackSystem = False,
    track_code: TrackCode = False,
    dry_run: DryRun = False,
    trust_pickle: TrustPickle = False,
) -> None:
    """Train a curriculum with several seeds and values of its parameters.

    Given again, the command continues an interrupted sweep.
    """
    from rlstages.cli.sweeping import sweep_parameters

    also = also_sent(track_system, track_code)
    sweep_parameters(source, pairs(parameters), seeds, out, on, jobs, track, also, dry_run, trust_pickle)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"rlstages {version('rlstages')} on Python {sys.version.split()[0]}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Staged reinforcement learning: clone an expert, then fine-tune the same network on harder environments."""
