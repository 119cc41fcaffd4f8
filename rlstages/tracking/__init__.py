"""Readers of a run's events: console, Weights & Biases, TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from rlstages.events import Tracker
from rlstages.storage.rundir import RunDirectory, read_events

Track = Literal["auto", "online", "offline", "none"]


def open_trackers(run: RunDirectory, track: Track, console: bool, warn: Callable[[str], None]) -> list[Tracker]:
    """Open what follows a run.

    Args:
        run: Its directory, before this session's first event.
        track: Where Weights & Biases runs; `"auto"` is online where a key is configured, else offline. Unless it is
            `"none"`, TensorBoard's files are written too.
        console: Whether to show the run on standard output.
        warn: Takes one sentence for a person.
    """
    from rlstages.tracking.console import console_tracker
    from rlstages.tracking.mode import tracking_mode
    from rlstages.tracking.tensorboard import tensorboard_tracker
    from rlstages.tracking.wandb import wandb_tracker

    record, history = run.record, list(read_events(run.path))
    trackers: list[Tracker] = []
    if console:
        trackers.append(console_tracker(record.curriculum, history=history))
    mode = tracking_mode(track)
    if mode != "none":
        trackers.append(wandb_tracker(run.path, mode, warn=warn))
    if track != "none":
        trackers.append(tensorboard_tracker(run.path, history=history, warn=warn))
    return trackers
