"""The commands `rlstages demos ...` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from rlstages.cli.options import Json, TrustPickle, pairs

demos = typer.Typer(help="Record and inspect demonstrations.", no_args_is_help=True)


@demos.command("record")
def record_command(
    environment: Annotated[
        str, typer.Argument(help="Environment: module:Id-v0, module:function, or FILE.py:function.")
    ],
    expert: Annotated[
        str, typer.Argument(help="Expert: module:function, FILE.py:function, a run directory, or a model zip.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, with the ending .safetensors.")],
    episodes: Annotated[int, typer.Option(help="Episodes to record.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Random seed of the episodes.", min=0)] = 0,
    argument: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("-k", "--kwarg", metavar="NAME=VALUE", help="Argument of the environment, as JSON; repeatable."),
    ] = None,
    trust_pickle: TrustPickle = False,
) -> None:
    """Record an expert's episodes in a file."""
    from rlstages.cli.demonstrating import record_demonstrations

    record_demonstrations(environment, expert, out, episodes, seed, pairs(argument), trust_pickle)


@demos.command("inspect")
def inspect_command(file: Annotated[Path, typer.Argument(help="File of demonstrations.")], json: Json = False) -> None:
    """Print the contents of a file of demonstrations."""
    from rlstages.cli.demonstrating import inspect_demonstrations

    inspect_demonstrations(file, json)
