"""The stages of a run as rich renderables: the ladder, and the stage that runs now in detail."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rlstages.events import LookedBack
from rlstages.tracking import text
from rlstages.tracking.state import RunState, StageState

_NARROW = 72
_WORDY = 110
_DETAIL_LINES = 12
_COLORS = {"reached": "green", "completed": "green", "missed": "red", "collapsed": "red"}


@dataclass(frozen=True)
class Glyphs:
    """The characters a terminal can show."""

    reached: str = "✓"
    missed: str = "✗"
    current: str = "▶"
    pending: str = "·"
    full: str = "━"
    empty: str = "╌"
    bars: str = text.UNICODE_BARS
    ellipsis: str = "…"


UNICODE = Glyphs()
ASCII = Glyphs("+", "x", ">", ".", "#", "-", text.ASCII_BARS, "...")


def live_view(state: RunState, glyphs: Glyphs, width: int, height: int, now: float) -> RenderableType:
    """Return heading, ladder and the current stage, within a terminal of this size."""
    parts: list[RenderableType] = [heading(state, now), ladder(state, glyphs, width, now, height - _DETAIL_LINES)]
    stage = state.current
    if stage and not stage.ended:
        title = Text(stage.name, "bold")
        parts.append(Panel(detail(stage, glyphs, width - 4), title=title, title_align="left", border_style="dim"))
    return Group(*parts)


def heading(state: RunState, now: float) -> Table:
    """Return a line with what is run, its seed and how long it has taken in this session."""
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    seed = f"  seed {state.start.seed}" if state.start else ""
    elapsed = text.span(now - state.began) if state.began else ""
    grid.add_row(Text.assemble((state.curriculum.name, "bold"), (seed, "dim")), Text(elapsed, "dim"))
    return grid


def ladder(state: RunState, glyphs: Glyphs, width: int, now: float | None = None, room: int | None = None) -> Table:
    """Return a table with a row for each stage; where there are more than fit into `room`, those around the current."""
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
    """Return what the running stage does, in a few lines."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1)
    lines = _cloning(stage, glyphs, width) if stage.max_epochs is not None else _fine_tuning(stage, glyphs, width)
    for label, content in lines or [("", Text(stage.description, "dim"))]:
        table.add_row(label, content)
    return table


def demonstrations_line(stage: StageState) -> str:
    """Return the demonstrations of a cloning stage in one line, or an empty one."""
    shown = stage.demonstrations
    if shown is None:
        return ""
    measured = f"{stage.measure_of(shown.score)} {text.number(stage.measured(shown.score))}"
    held = f", {shown.held_out_episodes} held out" if shown.held_out_episodes else ""
    return f"{shown.score.episodes} episodes of {shown.source}: {measured}{held}"


def look_line(looked: LookedBack) -> str:
    """Return what a look at the stage before has found, in one line."""
    return f"{looked.stage}: {looked.decline}"


def epoch_line(stage: StageState) -> str:
    """Return the latest epoch's metrics in one line."""
    metrics = dict(stage.epoch.metrics) if stage.epoch else {}
    shown = ", ".join(f"{name.replace('_', ' ')} {text.number(value)}" for name, value in metrics.items())
    return f"{shown} (best)" if stage.epoch and stage.epoch.best and "held_out_loss" in metrics else shown


def phase(stage: StageState) -> str:
    """Return what a started stage does now, or how it ended, in a word or two."""
    if stage.finished:
        return stage.finished.outcome
    if stage.collapsed:
        return "collapsed"
    if stage.looked and not stage.looked.over:
        return "looking back"
    if stage.confirming:
        return "confirming"
    if stage.max_epochs is not None:
        return "cloning" if stage.epoch else "preparing"
    return stage.rollout.phase if stage.rollout else "starting"


def current_score(stage: StageState) -> float | None:
    """Return the number that best says how good the policy is now, in the criterion's measure."""
    if stage.finished:
        return stage.verdict.value if stage.verdict else stage.measured(stage.finished.after)
    if stage.confirming and stage.judged:
        return stage.judged.verdict.value
    if stage.rollout:
        return stage.rollout.value
    return stage.measured(stage.evaluated.score) if stage.evaluated else None


def _cloning(stage: StageState, glyphs: Glyphs, width: int) -> list[tuple[str, Text]]:
    lines = []
    if shown := demonstrations_line(stage):
        lines.append(("shown", Text(shown)))
    if stage.epoch and stage.max_epochs:
        done = stage.epoch.epoch
        lines.append(("epochs", _progress(done / stage.max_epochs, glyphs, width, f"{done} of {stage.max_epochs}")))
        lines.append(("fit", _curve(epoch_line(stage), stage, glyphs, width)))
    if stage.evaluated:
        lines.append((stage.evaluated.purpose, Text(str(stage.evaluated.score))))
    return [*lines, *_confirmation(stage)]


def _fine_tuning(stage: StageState, glyphs: Glyphs, width: int) -> list[tuple[str, Text]]:
    rollout, lines = stage.rollout, []
    if rollout and stage.max_steps:
        left = f", at most {text.span(stage.seconds_left)} left" if stage.seconds_left is not None else ""
        speed = f"{text.count(rollout.steps_per_second)}/s"
        spent = f"{text.count(stage.steps)} of {text.count(stage.max_steps)}, {speed}{left}"
        lines.append(("steps", _progress(stage.steps / stage.max_steps, glyphs, width, spent)))
    if rollout:
        measured = f"{text.number(rollout.value)}, wanted {text.number(rollout.threshold)}"
        lines.append((stage.measure, _curve(measured, stage, glyphs, width)))
    if rollout and not stage.confirming and rollout.waiting_for:
        lines.append(("gate", Text(rollout.waiting_for)))
    if stage.looked:
        lines.append(("look back", Text(look_line(stage.looked))))
    return [*lines, *_confirmation(stage)]


def _confirmation(stage: StageState) -> list[tuple[str, Text]]:
    if not stage.judged:
        return []
    label = "confirm" if stage.confirming else "last try"
    color = "yellow" if stage.confirming else "dim"
    return [(label, Text(f"attempt {stage.judged.attempt}: {stage.judged.verdict.reason}", color))]


def _progress(share: float, glyphs: Glyphs, width: int, caption: str) -> Text:
    room = max(6, min(40, width - len(caption) - 14))
    return Text.assemble((text.bar(share, room, glyphs.full, glyphs.empty), "cyan"), f"  {caption}")


def _curve(caption: str, stage: StageState, glyphs: Glyphs, width: int) -> Text:
    room = min(40, width - len(caption) - 14)
    return Text.assemble(f"{caption}  ", (text.sparkline(tuple(stage.curve), room, glyphs.bars), "cyan"))


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
    if stage.finished:
        reached = stage.finished.outcome != "missed"
        return Text(glyphs.reached if reached else glyphs.missed, _COLORS.get(stage.finished.outcome, ""))
    if stage.collapsed:
        return Text(glyphs.missed, _COLORS["collapsed"])
    current = stage is state.current
    return Text(glyphs.current if current else glyphs.pending, "yellow" if current else "")


def _entered(state: RunState, stage: StageState) -> bool:
    return stage.started or (state.current is not None and stage.index < state.current.index)


def _measure_of(stage: StageState) -> str:
    scores = [stage.finished.after if stage.finished else None, stage.evaluated.score if stage.evaluated else None]
    return stage.measure_of(next((score for score in scores if score), None))


def _window(state: RunState, room: int | None) -> tuple[int, int]:
    total = len(state.stages)
    # The head, and the two lines that say how many are hidden.
    shown = total if room is None else max(3, room - 3)
    if shown >= total:
        return 0, total
    current = state.current.index if state.current else 0
    first = min(max(0, current - shown // 2), total - shown)
    return first, first + shown
