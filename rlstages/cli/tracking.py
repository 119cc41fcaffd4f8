"""`rlstages track`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from rlstages.tracking.replay import track
from rlstages.tracking.wandb.tracker import place_lines


def track_run(run: Path, mode: Literal["auto", "online", "offline"], project: str | None) -> None:
    """Complete a run at W&B and in TensorBoard, and print where it is."""
    done = track(run, mode=mode, project=project, warn=lambda sentence: print(f"warning: {sentence}", file=sys.stderr))
    print(f"{run}: {done.points:,} points in W&B", *place_lines(run), sep="\n")
