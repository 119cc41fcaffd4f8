"""Options that several commands take, and how their texts are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from rlstages.errors import InputError, require

Source = Annotated[str, typer.Argument(help="Curriculum: a Python file, or a name that 'rlstages curricula' lists.")]
Run = Annotated[Path, typer.Argument(help="Run directory.")]
Parameters = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer on Python 3.10 reads this form)
    typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Parameter of the curriculum; repeatable."),
]
Tracking = Annotated[
    Literal["auto", "online", "offline", "none"],
    typer.Option(
        metavar="MODE",
        help="Mode of Weights & Biases: online, offline, none or auto (online if a key is configured, else offline).",
    ),
]
TrackSystem = Annotated[
    bool, typer.Option("--track-system", help="Also send measurements of the machine to Weights & Biases.")
]
TrackCode = Annotated[bool, typer.Option("--track-code", help="Also send the curriculum's files to Weights & Biases.")]
OfRun = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(
        metavar="FILE", help="Curriculum of a run that somebody else made; only code that it names is imported."
    ),
]


def _risky_pickle(given: bool) -> bool:
    if given:
        risk = "loading an expert's model zip runs any code that is hidden in it, with all that you may do"
        print(f"--trust-pickle: {risk}.", file=sys.stderr)
    return given


def _risky_imports(given: bool) -> bool:
    if given:
        risk = "every module that the run names is imported and run, from files that it names too"
        print(f"--trust-imports: {risk}.", file=sys.stderr)
    return given


TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Load model zips of experts, although they can run any code hidden in them.",
        callback=_risky_pickle,
    ),
]
TrustImports = Annotated[
    bool,
    typer.Option(
        "--trust-imports",
        help="Import all code that a run names, although somebody else made it.",
        callback=_risky_imports,
    ),
]
Seeds = Annotated[str, typer.Option(help="Random seeds: 0:5 for 0 to 4, or 1,4,7.")]
Jobs = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Number of simultaneous runs. Default: one per core, or as many as Ray has room for.", min=1),
]
On = Annotated[
    str, typer.Option(metavar="local|ray[=ADDRESS]", help="Where to run: on this machine, or on a Ray cluster.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print the command of each run.")]
Episodes = Annotated[int, typer.Option(help="Episodes to play in each environment.", min=1)]
From = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--from", metavar="RUN", help="Start from the final policy (and the demonstrations) of this run."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def also_sent(system: bool, code: bool) -> list[Literal["system", "code"]]:
    """Return what else to send to Weights & Biases, in the form that `train` takes."""
    asked: dict[Literal["system", "code"], bool] = {"system": system, "code": code}
    return [name for name in asked if asked[name]]


def parameter(text: str) -> str:
    """Return NAME=VALUE of a parameter that a sweep's agent gives as an option; refuse other options."""
    plain = text.removeprefix("--")
    wanted = "=" in plain and not plain.startswith("-")
    advice = "'rlstages train --help' lists the options, and a parameter is given as -p NAME=VALUE or --NAME=VALUE"
    require(wanted, f"train takes no {text!r}; {advice}.", "option-invalid", value=text)
    return plain


def pairs(given: list[str] | None) -> dict[str, str]:
    """Read texts of the form NAME=VALUE.

    Raises:
        InputError: If a text has another form, or a name is given twice.
    """
    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{text!r} is not of the form NAME=VALUE.", "option-invalid", value=text)
        sentence = f"{name.strip()!r} is given a value twice; give it once."
        require(name.strip() not in found, sentence, "option-invalid", name=name.strip(), value=value)
        found[name.strip()] = value
    return found
