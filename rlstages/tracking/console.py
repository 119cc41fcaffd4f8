"""A run on the console: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from rlstages.events import (
    DemonstrationsReady,
    EpochFinished,
    Evaluated,
    Event,
    ExplorationMeasured,
    HandoverChecked,
    HandoverRecovered,
    Judged,
    LookedBack,
    RetentionMeasured,
    RolloutFinished,
    RunStarted,
    StageCollapsed,
    StageFinished,
    StageStarted,
    Warned,
)
from rlstages.specs.curriculum import Curriculum
from rlstages.tracking import text
from rlstages.tracking.ladder import (
    ASCII,
    UNICODE,
    demonstrations_line,
    epoch_line,
    heading,
    ladder,
    live_view,
    look_line,
    phase,
)
from rlstages.tracking.retention_table import exploration_line, handover_line, print_kept, retention_line
from rlstages.tracking.state import RunState, StageState

_REFRESHES_PER_SECOND = 2
_PLAIN_WIDTH = 100
_LEAST_SECONDS, _MOST_SECONDS, _EVERY_ROLLOUTS = 5.0, 30.0, 10


class _Stream:
    """Writes to a stream that may be closed, piped into `head`, or unable to show a character: it never raises."""

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
        """Follow the event; what it changes shows at the next refresh."""
        # Never held while printing: the refreshing thread takes rich's lock first and this one second.
        with self._lock:
            self._state.take(event)
            # The clock of the events, so that a log that is shown later has its own times.
            self._lag = time.time() - event.time
        if not self._started:
            self._started = True
            self._live.start()
        if isinstance(event.payload, Warned):
            self._console.print(Text(f"warning: {_clean(event.payload.message)}", "yellow"))

    def say(self, line: str) -> None:
        """Print a line that belongs to no event, above the live view."""
        self._console.print(_clean(line), soft_wrap=True)

    def render(self) -> RenderableType:
        """Return the picture of this moment."""
        with self._lock:
            now = time.time() - self._lag
            return live_view(self._state, self._glyphs, self._console.width, self._console.height, now)

    def close(self) -> None:
        """Take the live view away and print the table of stages."""
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
        self._last_time = -1e18
        self._rollouts = 0
        self._phase = ""

    def __call__(self, event: Event) -> None:
        """Print the event if it is notable."""
        self._state.take(event)
        if isinstance(event.payload, RolloutFinished):
            self._rollouts += 1
        line = self._line(event)
        if line:
            place = (
                f"[{event.stage_index + 1}/{len(self._state.stages)} {event.stage_name}] " if event.stage_name else ""
            )
            self._console.print(_clean(place + line), soft_wrap=True)

    def say(self, line: str) -> None:
        """Print a line that belongs to no event."""
        self._console.print(_clean(line), soft_wrap=True)

    def close(self) -> None:
        """Print the table of stages."""
        _print_end(self._state, self._console, self._run)

    def _line(self, event: Event) -> str:
        payload, stage = event.payload, self._state.current
        if isinstance(payload, RunStarted):
            verb = "resumed run" if payload.resumed else "run"
            stages = f"{len(self._state.stages)} stage{'s' * (len(self._state.stages) != 1)}"
            engine = f"; engine {payload.engine}" if payload.engine else ""
            return f"{payload.curriculum.name}: {stages}, seed {payload.seed}, {verb} {payload.run_id}{engine}"
        if isinstance(payload, Warned):
            return f"warning: {payload.message}"
        if stage is None or event.stage_index < 0:
            return ""
        if isinstance(payload, StageStarted):
            self._last_time, self._rollouts, self._phase = -1e18, 0, ""
            return payload.description if payload.visit == 1 else f"{payload.description}, visit {payload.visit}"
        if isinstance(payload, DemonstrationsReady):
            return demonstrations_line(stage)
        if isinstance(payload, Evaluated):
            return f"{payload.purpose}: {payload.score}"
        if isinstance(payload, StageFinished):
            took = f"{text.count(payload.stage_steps)} steps, {text.span(payload.seconds)}"
            return f"{payload.outcome} after {took}: {payload.reason}"
        if isinstance(payload, ExplorationMeasured):
            return exploration_line(payload)
        if isinstance(payload, HandoverChecked):
            return handover_line(payload, stage)
        if isinstance(payload, RetentionMeasured):
            return retention_line(payload)
        if isinstance(payload, HandoverRecovered):
            return f"as good as the clone again, {text.count(payload.steps)} steps after the first update"
        if isinstance(payload, LookedBack):
            return f"look back at {look_line(payload)}" if payload.over else ""
        if isinstance(payload, StageCollapsed):
            took = f"{text.count(payload.stage_steps)} steps, {text.span(payload.seconds)}"
            return f"collapsed after {took}, back to {payload.back_to!r}: {payload.reason}"
        return self._progress(event, stage)

    def _progress(self, event: Event, stage: StageState) -> str:
        """Return a line for events that come often, but only now and then."""
        payload = event.payload
        if isinstance(payload, Judged):
            decided = payload.verdict.met or payload.verdict.futile
            if decided or self._due(event.time, enough=True):
                return f"confirmation {payload.attempt}: {payload.verdict.reason}"
        if isinstance(payload, EpochFinished) and (
            self._due(event.time, enough=True) or payload.epoch == stage.max_epochs
        ):
            return f"epoch {payload.epoch} of {stage.max_epochs}: {epoch_line(stage)}"
        if isinstance(payload, RolloutFinished):
            changed, self._phase = payload.phase != self._phase, payload.phase
            if changed or self._due(event.time, enough=self._rollouts >= _EVERY_ROLLOUTS):
                self._rollouts, self._last_time = 0, event.time
                return _rollout_line(payload, stage)
        return ""

    def _due(self, now: float, enough: bool) -> bool:
        # A clock that was put back must not silence the console until it has caught up.
        since = abs(now - self._last_time)
        due = since >= _MOST_SECONDS or (enough and since >= _LEAST_SECONDS)
        if due:
            self._last_time = now
        return due


def _rollout_line(payload: RolloutFinished, stage: StageState) -> str:
    limit = f" of {text.count(stage.max_steps)}" if stage.max_steps else ""
    measured = f"{stage.measure} {text.number(payload.value)}, wanted {text.number(payload.threshold)}"
    left = f", at most {text.span(stage.seconds_left)} left" if stage.seconds_left is not None else ""
    speed = f"{text.count(payload.steps_per_second)} steps/s"
    line = f"{phase(stage)}: {text.count(stage.steps)}{limit} steps, {measured}, {speed}{left}"
    return f"{line}; {payload.waiting_for}" if payload.waiting_for else line


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
        stream: Where to write; `None` stands for standard output.
        history: Events of earlier sessions, for a resumed run: `read_events(directory)`.
        run: The run directory, for the commands that are printed.
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
