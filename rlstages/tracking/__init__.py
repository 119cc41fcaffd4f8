"""Readers of a run's events: console, Weights & Biases, TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from rlstages.events import Tracker
from rlstages.storage.run_directory import RunDirectory, read_events

Track = Literal["auto", "online", "offline", "none"]
Extra = Literal["system", "code"]
"""Data that W&B gets only on request: measurements of the machine, and the files of the curriculum."""


def open_trackers(
    run: RunDirectory,
    track: Track,
    console: bool,
    warn: Callable[[str], None],
    *,
    system: bool = False,
    code: Sequence[Path] = (),
) -> list[Tracker]:
    """Open the trackers of a run.

    Args:
        run: Run directory, before this session's first event.
        track: Where Weights & Biases runs; `"auto"` is online where a key is configured, else offline. Unless it is
            `"none"`, TensorBoard's files are written too.
        console: Whether to show the run on standard output.
        warn: Function that takes one sentence for the user.
        system: Whether W&B is sent what is measured of the machine.
        code: Files of the curriculum that W&B is sent.
    """
    from rlstages.tracking.console import console_tracker
    from rlstages.tracking.tensorboard import tensorboard_tracker
    from rlstages.tracking.wandb.session import said_mode
    from rlstages.tracking.wandb.tracker import wandb_tracker

    record, history = run.record, list(read_events(run.path))
    trackers: list[Tracker] = []
    say = _print
    if console:
        shown = console_tracker(record.curriculum, history=history, run=run.path)
        trackers.append(shown)
        say = shown.say
    mode = said_mode(track)
    if mode != "none":
        trackers.append(wandb_tracker(run.path, mode, system=system, code=code, warn=warn, say=say))
    if track != "none":
        trackers.append(tensorboard_tracker(run.path, history=history, warn=warn))
    return trackers


def _print(line: str) -> None:
    """Print a line, in a notebook too, and ignore a closed output."""
    with suppress(OSError, ValueError):
        print(line, flush=True)
