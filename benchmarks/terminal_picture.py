"""The README's picture: a run's live view as the terminal showed it, drawn from its event log.

Example: `python benchmarks/terminal_picture.py runs/rooms-s0 --stage 3 --judged 16 --out docs/train.svg`
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from rich.console import Console

from rlstages.events import Judged
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import read_events
from rlstages.tracking.ladder import UNICODE, live_view
from rlstages.tracking.state import RunState


def main() -> None:
    """Replay the log up to a confirmation of one stage and draw what the live view shows then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stage", type=int, required=True, help="index of the stage, from 0")
    parser.add_argument("--judged", type=int, default=2, help="stop after this many waves of its confirmations")
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    state = RunState(read_record(options.run).curriculum)
    waves, now = 0, 0.0
    for event in read_events(options.run):
        state.take(event)
        now = event.time
        waves += isinstance(event.payload, Judged) and event.stage_index == options.stage
        if waves == options.judged:
            break
    console = Console(record=True, width=options.width, file=io.StringIO(), force_terminal=True)
    console.print(live_view(state, UNICODE, options.width, 40, now))
    console.save_svg(str(options.out), title="rlstages train rooms")


if __name__ == "__main__":
    main()
