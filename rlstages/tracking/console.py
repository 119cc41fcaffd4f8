"""The console trackers: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from rlstages.events import Event, RolloutFinished
from rlstages.specs.curriculum import Curriculum
from rlstages.tracking.ladder import ASCII, UNICODE, heading, ladder, live_view
from rlstages.tracking.retention_table import print_kept
from rlstages.tracking.state import RunState, StageState

_REFRESHES_PER_SECOND = 2
_PLAIN_WIDTH = 100
_LEAST_SECONDS, _MOST_SECONDS = 5.0, 30.0


class _Stream:
    """A stream wrapper that never raises, even if the stream is closed or cannot encode a character."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, written: str) -> int:
        try:
            self._stream.write(written.encode(self.encoding, "replace").decode(self.encoding))
        except (OSError, ValueError, LookupError):
            return 0
        return len(written)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def isatty(self) -> bool:
        try:
            return bool(self._stream.isatty())
        except (AttributeError, OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LiveConsole:
    """Draws the ladder and the current stage in place; see `console_tracker`."""

    def __init__(self, state: RunState, console: Console, run: Path | None) -> None:
        self._state = state
        self._console = console
        self._run = run
        self._glyphs = ASCII if console.options.ascii_only else UNICODE
        self._lock = threading.Lock()
        self._lag = 0.0
        self._live = Live(
            get_renderable=self.render, console=console, refresh_per_second=_REFRESHES_PER_SECOND, transient=True
        )
        self._started = False

    def __call__(self, event: Event) -> None:
        """Take an event, which shows at the next refresh."""
        # Do not hold this lock while printing: the refreshing thread takes rich's lock first and this one second.
        with self._lock:
            self._state.take(event)
            # Use the time of the events, so that a log that is shown later has its own times.
            self._lag = time.time() - event.time
        if not self._started:
            self._started = True
            self._live.start()
        if event.payload.stands_out:
            self._console.print(Text(_clean(event.payload.line(self._state.place_of(event))), "yellow"))

    def say(self, line: str) -> None:
        """Print a line without an event, above the live view."""
        self._console.print(_clean(line), soft_wrap=True)

    def render(self) -> RenderableType:
        """Return the current view."""
        with self._lock:
            now = time.time() - self._lag
            return live_view(self._state, self._glyphs, self._console.width, self._console.height, now)

    def close(self) -> None:
        """Remove the live view, and print the table of stages."""
        if self._started:
            self._live.stop()
            with self._lock:
                now = time.time() - self._lag
            self._console.print(heading(self._state, now))
            _print_end(self._state, self._console, self._run)


class PlainConsole:
    """Prints a line for each notable event, without colours or movement; see `console_tracker`."""

    def __init__(self, state: RunState, console: Console, run: Path | None) -> None:
        self._state = state
        self._console = console
        self._run = run
        self._stage: StageState | None = None
        self._last_time = -1e18
        self._unseen: Counter[type] = Counter()
        self._phase = ""

    def __call__(self, event: Event) -> None:
        """Print the event if it is notable."""
        self._state.take(event)
        if self._state.current is not self._stage:
            self._stage, self._last_time, self._phase = self._state.current, -1e18, ""
            self._unseen.clear()
        line = event.payload.line(self._state.place_of(event))
        if line and self._is_due(event):
            place = (
                f"[{event.stage_index + 1}/{len(self._state.stages)} {event.stage_name}] " if event.stage_name else ""
            )
            self._console.print(_clean(place + line), soft_wrap=True)

    def say(self, line: str) -> None:
        """Print a line without an event."""
        self._console.print(_clean(line), soft_wrap=True)

    def close(self) -> None:
        """Print the table of stages."""
        _print_end(self._state, self._console, self._run)

    def _is_due(self, event: Event) -> bool:
        """Return whether to print an event. Frequent ones are printed only now and then."""
        payload, kind = event.payload, type(event.payload)
        every = payload.often(self._state.place_of(event))
        if not every:
            return True
        self._unseen[kind] += 1
        # If the clock was set back, the console must not stay silent until it has caught up.
        since = abs(event.time - self._last_time)
        due = since >= _MOST_SECONDS or (self._unseen[kind] >= every and since >= _LEAST_SECONDS)
        if isinstance(payload, RolloutFinished) and payload.phase != self._phase:
            self._phase, due = payload.phase, True
        if due:
            self._unseen[kind], self._last_time = 0, event.time
        return due


def _print_end(state: RunState, console: Console, run: Path | None) -> None:
    glyphs = ASCII if console.options.ascii_only else UNICODE
    console.print(ladder(state, glyphs, console.width))
    print_kept(state, console, run)
    if state.finish:
        color = {"reached": "green", "missed": "red", "failed": "red"}.get(state.finish.outcome, "yellow")
        console.print(Text(_clean(f"{state.finish.outcome}: {state.finish.reason}"), color), soft_wrap=True)


def _clean(line: str) -> str:
    """Return the text in one line, without control characters that would move the cursor."""
    return "".join(c if c.isprintable() else " " for c in line)


def console_tracker(
    curriculum: Curriculum,
    terminal: bool | None = None,
    stream: IO[str] | None = None,
    *,
    history: Iterable[Event] = (),
    run: Path | None = None,
) -> LiveConsole | PlainConsole:
    """Return a tracker that shows the run on the console.

    Args:
        curriculum: What is run.
        terminal: Whether to draw a live view; `None` finds out.
        stream: Output stream; `None` means standard output.
        history: Events of earlier sessions, for a resumed run: `read_events(directory)`.
        run: Run directory, for the commands that are printed.
    """
    out = _Stream(stream if stream is not None else sys.stdout)
    if terminal is None:
        terminal = out.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    state = RunState(curriculum, history)
    console = Console(
        file=cast(IO[str], out),
        force_terminal=terminal,
        force_jupyter=False,
        no_color=None if terminal else True,
        width=None if terminal else _PLAIN_WIDTH,
        markup=False,
        highlight=False,
        emoji=False,
    )
    return LiveConsole(state, console, run) if terminal else PlainConsole(state, console, run)
