"""Rich renderables of a run: the ladder of stages, and the current stage in detail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rlstages.events import DemonstrationsReady, EpochFinished, Evaluated, Judged, LookedBack, RolloutFinished, text
from rlstages.tracking.state import RunState, StageState

_NARROW = 72
_WORDY = 110
_DETAIL_LINES = 12
_UNICODE_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=*#"
_COLORS = {"reached": "green", "completed": "green", "missed": "red", "collapsed": "red"}


@dataclass(frozen=True)
class Glyphs:
    """The characters that a terminal can show."""

    reached: str = "✓"
    missed: str = "✗"
    current: str = "▶"
    pending: str = "·"
    full: str = "━"
    empty: str = "╌"
    bars: str = _UNICODE_BARS
    ellipsis: str = "…"


UNICODE = Glyphs()
ASCII = Glyphs("+", "x", ">", ".", "#", "-", _ASCII_BARS, "...")


def live_view(state: RunState, glyphs: Glyphs, width: int, height: int, now: float) -> RenderableType:
    """Return heading, ladder and the current stage, within a terminal of this size."""
    parts: list[RenderableType] = [heading(state, now), ladder(state, glyphs, width, now, height - _DETAIL_LINES)]
    stage = state.current
    if stage and not stage.ended:
        title = Text(stage.name, "bold")
        parts.append(Panel(detail(stage, glyphs, width - 4), title=title, title_align="left", border_style="dim"))
    return Group(*parts)


def heading(state: RunState, now: float) -> Table:
    """Return a line with the curriculum, the seed and the duration of this session."""
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    seed = f"  seed {state.start.seed}" if state.start else ""
    elapsed = text.span(now - state.began) if state.began else ""
    grid.add_row(Text.assemble((state.curriculum.name, "bold"), (seed, "dim")), Text(elapsed, "dim"))
    return grid


def ladder(state: RunState, glyphs: Glyphs, width: int, now: float | None = None, room: int | None = None) -> Table:
    """Return a table with a row for each stage, or those around the current one if not all fit into `room`."""
    table = Table(box=None, padding=(0, 1), expand=True, header_style="dim", pad_edge=False)
    table.add_column("", width=1, no_wrap=True)
    table.add_column("stage", ratio=1, min_width=8, no_wrap=True, overflow="ellipsis")
    wide, wordy = width >= _NARROW, width >= _WORDY
    if wordy:
        table.add_column("", ratio=2, no_wrap=True, overflow="ellipsis", style="dim")
    for title in ("outcome", "score", "wanted", *(["bound"] if wide else []), "steps", *(["time"] if wide else [])):
        table.add_column(title, no_wrap=True, justify="left" if title == "outcome" else "right")
    first, last = _window(state, room)
    if first:
        table.add_row("", Text(f"{glyphs.ellipsis} {first} before", "dim"))
    for stage in state.stages[first:last]:
        mark, name, *cells = _row(state, stage, glyphs, now)
        said = [Text(stage.description)] if wordy else []
        shown = cells if wide else [*cells[:3], cells[4]]
        table.add_row(mark, name, *said, *shown, style="dim" if not _entered(state, stage) else "")
    if last < len(state.stages):
        table.add_row("", Text(f"{glyphs.ellipsis} {len(state.stages) - last} more", "dim"))
    return table


def detail(stage: StageState, glyphs: Glyphs, width: int) -> Table:
    """Return the activity of the current stage, in a few lines."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1)
    lines = _cloning(stage, glyphs, width) if stage.max_epochs is not None else _fine_tuning(stage, glyphs, width)
    for label, content in lines or [("", Text(stage.description, "dim"))]:
        table.add_row(label, content)
    return table


def phase(stage: StageState) -> str:
    """Return the activity or the outcome of a started stage, in a word or two."""
    looked, rollout = stage.last(LookedBack), stage.last(RolloutFinished)
    if stage.ended:
        return stage.ended.outcome
    if looked and not looked.over:
        return "looking back"
    if stage.confirming:
        return "confirming"
    if rollout:
        return rollout.phase
    if stage.spec.reinforces:
        return "starting"
    return "preparing" if stage.max_epochs is not None and not stage.last(EpochFinished) else stage.spec.activity


def current_score(stage: StageState) -> float | None:
    """Return the best estimate of the current policy's score, in the criterion's measure."""
    judged, rollout, evaluated = stage.last(Judged), stage.last(RolloutFinished), stage.last(Evaluated)
    if stage.finished:
        return stage.verdict.value if stage.verdict else stage.measured(stage.finished.after)
    if stage.confirming and judged:
        return judged.verdict.value
    if rollout:
        return rollout.value
    return stage.measured(evaluated.score) if evaluated else None


def _cloning(stage: StageState, glyphs: Glyphs, width: int) -> list[tuple[str, Text]]:
    shown, epoch, evaluated = stage.last(DemonstrationsReady), stage.last(EpochFinished), stage.last(Evaluated)
    lines = []
    if shown:
        lines.append(("shown", Text(shown.line(stage))))
    if epoch and stage.max_epochs:
        done = epoch.epoch
        lines.append(("epochs", _progress(done / stage.max_epochs, glyphs, width, f"{done} of {stage.max_epochs}")))
        lines.append(("fit", _curve(epoch.fit(), stage, glyphs, width)))
    if evaluated:
        lines.append((evaluated.purpose, Text(str(evaluated.score))))
    return [*lines, *_confirmation(stage)]


def _fine_tuning(stage: StageState, glyphs: Glyphs, width: int) -> list[tuple[str, Text]]:
    rollout, looked, lines = stage.last(RolloutFinished), stage.last(LookedBack), []
    if rollout and stage.max_steps:
        speed = f"{text.count(rollout.steps_per_second)}/s{rollout.time_for(stage.max_steps - stage.steps)}"
        spent = f"{text.count(stage.steps)} of {text.count(stage.max_steps)}, {speed}"
        lines.append(("steps", _progress(stage.steps / stage.max_steps, glyphs, width, spent)))
    if rollout:
        measured = f"{text.number(rollout.value)}, wanted {text.number(rollout.threshold)}"
        lines.append((stage.measure, _curve(measured, stage, glyphs, width)))
    if rollout and not stage.confirming and rollout.waiting_for:
        lines.append(("gate", Text(rollout.waiting_for)))
    if looked:
        lines.append(("look back", Text(looked.found())))
    return [*lines, *_confirmation(stage)]


def _confirmation(stage: StageState) -> list[tuple[str, Text]]:
    judged = stage.last(Judged)
    if not judged:
        return []
    label, color = ("confirm", "yellow") if stage.confirming else ("last try", "dim")
    return [(label, Text(f"attempt {judged.attempt}: {judged.verdict.reason}", color))]


def _progress(share: float, glyphs: Glyphs, width: int, caption: str) -> Text:
    room = max(6, min(40, width - len(caption) - 14))
    return Text.assemble((_bar(share, room, glyphs.full, glyphs.empty), "cyan"), f"  {caption}")


def _curve(caption: str, stage: StageState, glyphs: Glyphs, width: int) -> Text:
    room = min(40, width - len(caption) - 14)
    return Text.assemble(f"{caption}  ", (sparkline(tuple(stage.curve), room, glyphs.bars), "cyan"))


def _row(state: RunState, stage: StageState, glyphs: Glyphs, now: float | None) -> list[Text]:
    verdict, score = stage.verdict, current_score(stage)
    return [
        _mark(state, stage, glyphs),
        Text(_name(stage), "bold" if stage is state.current and not stage.ended else ""),
        Text(phase(stage) if stage.started else "", _COLORS.get(phase(stage), "yellow")),
        Text(f"{_measure_of(stage)} {text.number(score):>5}" if score is not None else ""),
        Text(text.number(stage.threshold) if stage.threshold is not None else ""),
        Text(text.number(verdict.bound) if verdict else ""),
        Text(text.count(stage.steps) if stage.started else ""),
        Text(_time(stage, now)),
    ]


def _name(stage: StageState) -> str:
    return stage.name if stage.visit == 1 else f"{stage.name} ({stage.visit})"


def _time(stage: StageState, now: float | None) -> str:
    if stage.ended:
        return text.span(stage.ended.seconds)
    return text.span(now - stage.began) if now is not None and stage.began is not None else ""


def _mark(state: RunState, stage: StageState, glyphs: Glyphs) -> Text:
    if stage.ended:
        glyph = glyphs.missed if stage.ended.outcome in ("missed", "collapsed") else glyphs.reached
        return Text(glyph, _COLORS.get(stage.ended.outcome, ""))
    current = stage is state.current
    return Text(glyphs.current if current else glyphs.pending, "yellow" if current else "")


def _entered(state: RunState, stage: StageState) -> bool:
    return stage.started or (state.current is not None and stage.index < state.current.index)


def _measure_of(stage: StageState) -> str:
    evaluated = stage.last(Evaluated)
    scores = [stage.finished.after if stage.finished else None, evaluated.score if evaluated else None]
    return stage.measure_of(next((score for score in scores if score), None))


def _window(state: RunState, room: int | None) -> tuple[int, int]:
    total = len(state.stages)
    # The header, and the two lines with the numbers of hidden stages
    shown = total if room is None else max(3, room - 3)
    if shown >= total:
        return 0, total
    current = state.current.index if state.current else 0
    first = min(max(0, current - shown // 2), total - shown)
    return first, first + shown


def sparkline(values: Sequence[float], width: int, bars: str = _UNICODE_BARS) -> str:
    """Return values as a row of bars, each the mean of an equal share of them, scaled to their range.

    Args:
        values: Values in order; non-finite ones are left out.
        width: Most characters.
        bars: Characters from low to high.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1:
        return ""
    n = min(width, len(finite))
    edges = [len(finite) * i // n for i in range(n + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    low, high = min(means), max(means)
    if high == low:
        return bars[len(bars) // 2] * n
    return "".join(bars[min(int((mean - low) / (high - low) * len(bars)), len(bars) - 1)] for mean in means)


def _bar(share: float, width: int, full: str, empty: str) -> str:
    filled = round(min(max(share, 0.0), 1.0) * width)
    return full * filled + empty * (width - filled)
