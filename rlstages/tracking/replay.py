"""Uploading a finished or interrupted run to Weights & Biases and TensorBoard, from its event log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlstages.errors import Fault, InputError, require
from rlstages.storage.run_directory import RunDirectory, read_events
from rlstages.tracking.tensorboard import tensorboard_tracker
from rlstages.tracking.wandb.session import said_mode
from rlstages.tracking.wandb.tracker import wandb_tracker

_SECONDS, _INIT_SECONDS = 3_600.0, 30.0
_warn = logging.getLogger(__name__).warning


@dataclass(frozen=True)
class Tracked:
    """The state of a run at Weights & Biases.

    Attributes:
        mode: `"online"` or `"offline"`.
        points: Number of points, those of earlier uploads included.
        url: Address of the run, if it is online.
        seconds: Duration in seconds.
    """

    mode: Literal["online", "offline"]
    points: int
    url: str | None
    seconds: float


def track(
    run: Path | str,
    *,
    mode: Literal["auto", "online", "offline"] = "auto",
    project: str | None = None,
    warn: Callable[[str], None] = _warn,
    seconds: float = _SECONDS,
) -> Tracked:
    """Complete a finished or interrupted run at W&B and in TensorBoard.

    Online, points that W&B has already are not sent again, and files that it has already make no new versions; offline,
    and for TensorBoard, the files are written anew. So a second call changes nothing.

    Args:
        run: Run directory.
        mode: `"auto"` is online where a key is configured and offline elsewhere.
        project: W&B's project; `None` is what W&B's settings or `WANDB_PROJECT` say, else `"rlstages"`.
        warn: Function that takes one sentence for the user.
        seconds: Maximum duration in seconds.

    Raises:
        InputError: If it is not a run directory, if the run is being trained, or if W&B is disabled.
        Fault: If W&B does not take the run.
    """
    began, path = time.monotonic(), Path(run)
    found = said_mode(mode)
    if found == "none":
        raise InputError(
            "W&B is disabled here (WANDB_MODE or its settings); give --mode online or offline.",
            "unavailable",
            name="wandb",
        )
    said: list[str] = []
    with RunDirectory(path):
        events = list(read_events(path))
        require(bool(events), f"{path} has no events yet; train it first.", "run-unready", path)
        board = tensorboard_tracker(path, warn=warn)
        for event in events:
            board(event)
        board.close()
        mirror = wandb_tracker(
            path, found, project=project, warn=said.append, init_seconds=_INIT_SECONDS, finish_seconds=seconds
        )
        mirror(events[0])
        mirror.close()
    if mirror.points is None:
        raise Fault(f"{mirror.failure}.", "tracking-failed", path)
    for sentence in said:
        warn(sentence)
    assert mirror.mode != "auto"
    return Tracked(mirror.mode, mirror.points, mirror.url, time.monotonic() - began)
