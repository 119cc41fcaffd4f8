"""The TensorBoard tracker, which writes a run's metrics with only the `tensorboard` package."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rlstages.events import Event
from rlstages.tracking.metrics import Points

_PREFIX = "events.out.tfevents."
_warn = logging.getLogger(__name__).warning


class TensorBoardTracker:
    """Writes `tensorboard/` in a run directory; see `tensorboard_tracker`."""

    def __init__(self, directory: Path, history: Iterable[Event], warn: Callable[[str], None]) -> None:
        self._directory = directory / "tensorboard"
        self._history = list(history)
        self._warn = warn
        self._writer: Any = None
        self._off = False
        self._points = Points()

    def __call__(self, event: Event) -> None:
        """Write the event's metrics."""
        if self._off:
            return
        try:
            if self._writer is None:
                self._open(event.time)
            self._write(event)
            self._writer.flush()
        except (OSError, ImportError) as error:
            self._off = True
            self._warn(f"TensorBoard is off for the rest of this run: {type(error).__name__}: {error}.")

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._warn(f"The TensorBoard file may lack its end: {error}.")

    def _open(self, time: float) -> None:
        from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._directory.mkdir(parents=True, exist_ok=True)
        # A resumed run goes back to its checkpoint. Older files would keep outdated points after it, so the file is
        # written anew from the event log.
        for file in self._directory.glob(f"{_PREFIX}*"):
            file.unlink()
        # tensorboard's own EventFileWriter would put the host name into the file name.
        path = self._directory / f"{_PREFIX}{int(time):010d}.rlstages"
        self._writer = RecordWriter(path.open("wb"))
        self._writer.write(event_pb2.Event(wall_time=time, file_version="brain.Event:2").SerializeToString())
        for event in self._history:
            self._write(event)
        self._history.clear()

    def _write(self, event: Event) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        numbers = self._points(event)
        step = int(numbers.get(event.payload.axis, event.global_step))
        if event.payload.axis not in numbers and event.stage_index >= 0 and numbers:
            numbers = {**numbers, "stage/index": float(event.stage_index)}
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        if values:
            point = event_pb2.Event(wall_time=event.time, step=step, summary=summary_pb2.Summary(value=values))
            self._writer.write(point.SerializeToString())


def tensorboard_tracker(
    directory: Path, *, history: Iterable[Event] = (), warn: Callable[[str], None] = _warn
) -> TensorBoardTracker:
    """Return a tracker that writes `tensorboard/` in a run directory.

    It writes event files directly, so that it needs neither torch nor TensorFlow. Cloning metrics are on epochs, all
    others on environment steps. A disk that refuses turns it off with a warning.

    Args:
        directory: Run directory.
        history: Events of earlier sessions, for a resumed run: `read_events(directory)`.
        warn: Function that takes one sentence for the user.
    """
    return TensorBoardTracker(directory, history, warn)
