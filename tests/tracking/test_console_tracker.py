import dataclasses
import io
import re
from typing import ClassVar

import pytest
import realistic
from building import curriculum, tuning
from rich.cells import cell_len
from rich.console import Console

from rlstages.events import EpochFinished, Event, RolloutFinished, RunStarted, StageFinished, StageStarted, Warned, text
from rlstages.specs.agent import Agent
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.stages.base import StageSpec
from rlstages.specs.stages.cloning import BehaviorCloning
from rlstages.tracking.console import console_tracker
from rlstages.tracking.ladder import ASCII, UNICODE, live_view, phase, sparkline
from rlstages.tracking.state import RunState

ESCAPE = "\x1b"


def follow(tracker, events):
    for event in events:
        tracker(event)
    tracker.close()


def plain(events=None, **options):
    plan, told = realistic.story()
    stream = io.StringIO()
    follow(console_tracker(plan, terminal=False, stream=stream, **options), told if events is None else events)
    return stream.getvalue()


def view(upto, width, height=40, glyphs=UNICODE):
    plan, events = realistic.story()
    state, stream = RunState(plan), io.StringIO()
    for event in events[:upto]:
        state.take(event)
    console = Console(width=width, height=height, file=stream, force_terminal=True)
    console.print(live_view(state, glyphs, width, height, events[upto - 1].time))
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


def where(kind, number=0):
    events = realistic.story()[1]
    return [i for i, event in enumerate(events) if type(event.payload).__name__ == kind][number] + 1


def test_plain_lines_tell_the_story():
    lines = plain().splitlines()
    assert lines[0] == "balance: 4 stages, seed 7, run abcd1234"
    assert lines[1].startswith("[1/4 copy] clone /home/someone/private/shown.npz in CartPole-v1")
    assert "[1/4 copy] epoch 3 of 3: loss 0.23, held out loss 0.27, accuracy 0.87 (best)" in lines
    assert "[1/4 copy] completed after 4.80k steps, 1 min 02 s: all epochs are done" in lines
    assert any(
        line.startswith("[2/4 short] critic fit: 1.02k of 40.0k steps, return -, wanted 100, 4.10k") for line in lines
    )
    confirmations = [line for line in lines if "confirmation" in line]
    assert confirmations[0].startswith("[2/4 short] confirmation 1: return 79.4 over 40 episodes")
    assert confirmations[0].endswith("but 95 is needed (100 less the margin)")
    assert "[2/4 short] reached after 39.6k steps, 1 min 02 s: the reason" in lines
    assert lines[-1] == "missed: 'long' did not reach a mean return of at least 400 within 60,000 steps"


def test_plain_rollouts_are_thinned():
    rollouts = [line for line in plain().splitlines() if "[2/4 short]" in line and "steps/s" in line]
    assert 2 <= len(rollouts) <= 5
    assert any("training:" in line for line in rollouts)


def test_plain_rollouts_are_a_tenth_when_they_are_slow():
    events = realistic.story()[1]
    first = events[where("RolloutFinished") - 1]
    slow = [dataclasses.replace(first, time=first.time + second) for second in range(30)]
    assert len([line for line in plain(slow).splitlines() if "steps/s" in line]) == 3
    slower = [dataclasses.replace(first, time=first.time + 60 * minute) for minute in range(4)]
    assert len([line for line in plain(slower).splitlines() if "steps/s" in line]) == 4


def test_plain_output_has_no_control_characters():
    shown = plain()
    assert "warning: rewards of 1e30 were seen [31m in 'CartPole-v1'" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_plain_ends_with_the_table():
    rows = [line.split() for line in plain().splitlines()[-5:-1]]
    assert [row[:3] for row in rows] == [
        ["✓", "copy", "completed"],
        ["✓", "short", "reached"],
        ["✓", "again", "completed"],
        ["✗", "long", "missed"],
    ]
    assert rows[1][3:8] == ["return", "113", "100", "102", "39.6k"]


def test_colours_are_not_forced_into_a_log(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert ESCAPE not in plain()


def test_interrupted_and_resumed_run_shows_earlier_stages():
    plan, events = realistic.story()
    half = where("StageFinished", 1)
    stream = io.StringIO()
    again = Event(RunStarted("abcd1234", plan, 7, {}, resumed=True), events[half - 1].global_step)
    follow(console_tracker(plan, terminal=False, stream=stream, history=events[:half]), [again])
    assert "resumed run abcd1234" in stream.getvalue()
    assert re.search(r"✓\s+short\s+reached", stream.getvalue())


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("glyphs", [ASCII, UNICODE])
def test_live_view_never_overflows(width, glyphs):
    for upto in range(1, len(realistic.story()[1]) + 1, 4):
        lines = view(upto, width, glyphs=glyphs)
        assert max(cell_len(line) for line in lines) <= width, upto
        assert len(lines) < 24


def test_live_view_while_cloning():
    shown = "\n".join(view(where("EpochFinished", 1), 80))
    assert re.search(r"▶\s+copy\s+cloning", shown)
    assert "20 episodes of" in shown
    assert "2 of 3" in shown
    assert re.search(r"·\s+long\s+400", shown)


def test_live_view_while_training():
    shown = "\n".join(view(where("RolloutFinished", 21), 80))
    assert re.search(r"✓\s+copy\s+completed", shown)
    assert re.search(r"▶\s+short\s+training\s+return\s+95.0\s+100\s+22.5k", shown)
    assert "22.5k of 40.0k" in shown
    assert "at most 4.3 s left" in shown
    assert "95.0, wanted 100" in shown and "▇" in shown
    assert "return 95 over the last 30 episodes, 100 wanted" in shown


def test_live_view_during_a_confirmation():
    shown = " ".join("\n".join(view(where("Judged", 1), 120)).split())
    assert "confirming" in shown
    assert "attempt 2: return 112 over 12 episodes" in shown
    assert "last 30 episodes" not in shown


def test_ladder_of_many_stages_fits_a_low_terminal():
    stages = [BehaviorCloning(f"stage {i}", Environment("CartPole-v1"), demonstrations="x.npz") for i in range(40)]
    plan = Curriculum("many", agent=Agent(), stages=stages)
    state, stream = RunState(plan), io.StringIO()
    state.take(Event(StageStarted("BehaviorCloning", "clone", max_epochs=30), 0, 20, "stage 20"))
    Console(width=80, file=stream).print(live_view(state, UNICODE, 80, 24, 0.0))
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 24
    assert any("▶" in line and "stage 20" in line for line in lines)
    assert sum(int(n) for n in re.findall(r"… (\d+) (?:before|more)", stream.getvalue())) > 25


def test_live_console_prints_warnings_and_the_final_table():
    plan, events = realistic.story()
    stream = io.StringIO()
    follow(console_tracker(plan, terminal=True, stream=stream), events)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "warning: rewards of 1e30 were seen [31m in" in shown
    assert re.search(r"✗\s+long\s+missed", shown.splitlines()[-2])
    assert re.match(r"balance  seed 7\s+\d", shown.splitlines()[-7])
    assert shown.splitlines()[-1].startswith("missed: 'long' did not reach")


@pytest.mark.parametrize("terminal", [True, False])
def test_terminal_without_unicode_gets_ascii(terminal):
    plan, events = realistic.story()
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    named = [*events, Event(Warned("ε is naïve"), 0)]
    follow(console_tracker(plan, terminal=terminal, stream=stream), named)
    stream.flush()
    shown = raw.getvalue().decode("ascii")
    assert re.search(r"\+\s+short\s+reached", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    assert "? is na?ve" in shown


@pytest.mark.parametrize("terminal", [True, False, None])
def test_closed_stream_does_not_stop_the_run(terminal):
    plan, events = realistic.story()
    stream = io.StringIO()
    stream.close()
    follow(console_tracker(plan, terminal=terminal, stream=stream), events)


def test_dumb_terminal_gets_plain_lines(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "dumb")
    plan, events = realistic.story()
    stream = Terminal()
    follow(console_tracker(plan, stream=stream), events)
    assert ESCAPE not in stream.getvalue()
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    follow(console_tracker(plan, stream=stream), events)
    assert ESCAPE in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (950, "950"),
        (999.7, "1.00k"),
        (12_345, "12.3k"),
        (131_900, "132k"),
        (999_700, "1.00M"),
        (1.5e6, "1.50M"),
    ],
)
def test_counts(value, shown):
    assert text.count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.871, "0.87"),
        (-80.34, "-80.3"),
        (245.4, "245"),
        (0.0001, "1.0e-04"),
        (0.0, "0.00"),
    ],
)
def test_numbers(value, shown):
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (41, "41 s"),
        (59.7, "1 min 00 s"),
        (62, "1 min 02 s"),
        (7_500, "2 h 05 min"),
        (273_600, "3 d 04 h"),
    ],
)
def test_spans(seconds, shown):
    assert text.span(seconds) == shown


def test_sparkline_keeps_the_shape():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([3, 3], 8) == "▅▅"
    assert sparkline([], 8) == sparkline([1, 2], 0) == ""
    assert len(sparkline(list(range(1000)), 30)) == 30


def test_a_missed_stage_shows_its_last_score_and_not_that_of_an_earlier_confirmation():
    failed = Verdict(False, True, 0.71, 0.61, 0.9, 48, None, "success 0.71 over 48 episodes, but 0.85 is needed")
    last = Score(48, 480, 5.8, 5.0, 6.6, 0.73, 0.6, 0.83)
    missed = StageFinished("missed", "Not reached.", 2_000, 1.0, None, last, failed, "a", "b")
    plan = curriculum(tuning())
    unscored = dataclasses.replace(missed, after=None)

    rows = {}
    for name, finished in {"scored": missed, "unscored": unscored}.items():
        stream = io.StringIO()
        tracker = console_tracker(plan, terminal=False, stream=stream)
        follow(tracker, [Event(RunStarted("id", plan, 0, {}), 0), Event(finished, 2_000, 0, "tune")])
        [row] = [line for line in stream.getvalue().splitlines() if " tune " in line and "missed  " in line]
        rows[name] = row.split()[2:-3]

    wanted = f"{plan.stages[0].until.threshold:.2f}"
    assert rows == {
        "scored": ["missed", "success", "0.73", wanted],
        "unscored": ["missed", "success", "0.71", wanted, "0.61"],
    }


def test_a_stage_that_is_given_more_steps_is_under_way_again():
    plan = curriculum(tuning(max_steps=2_000))
    more = curriculum(tuning(max_steps=3_000))
    rollout = RolloutFinished("training", 2_064, 8, 1.0, 0.5, 8.0, 0.5, 0.9, {}, 1e3, "waiting")
    missed = StageFinished("missed", "Not reached.", 2_000, 1.0, None, None, None, "a", "b")
    state = RunState(plan, [Event(RunStarted("id", plan, 0, {}), 0), Event(missed, 2_000, 0, "tune")])

    state.take(Event(RunStarted("id", more, 0, {}, resumed=True), 2_000))
    state.take(Event(rollout, 2_064, 0, "tune"))
    state.take(Event(dataclasses.replace(rollout, stage_steps=2_128), 2_128, 0, "tune"))

    [stage] = state.stages
    assert stage.finished is None
    assert (stage.steps, stage.max_steps) == (2_128, 3_000)


@dataclasses.dataclass(frozen=True)
class Stretching(StageSpec):
    runner: ClassVar[str] = "nowhere:Runner"

    name: str
    environment: Environment
    max_epochs: int | None = None
    until: None = None
    evaluation_episodes: int = 0

    @property
    def epoch_limit(self):
        return self.max_epochs


class Reading(Stretching):
    activity: ClassVar[str] = "reading"


@pytest.mark.parametrize(("kind", "said"), [(Stretching, "training"), (Reading, "reading")])
@pytest.mark.parametrize("epochs", [3, None])
def test_a_stage_of_another_kind_is_under_way_in_its_own_words(kind, said, epochs):
    plan = curriculum(kind("own", Environment("CartPole-v1"), max_epochs=epochs))
    state = RunState(plan, [Event(RunStarted("id", plan, 0, {}), 0)])
    state.take(Event(StageStarted(kind.__name__, "own", max_epochs=epochs), 0, 0, "own"))
    [stage] = state.stages
    shown = [phase(stage)]
    state.take(Event(EpochFinished(1, {"loss": 0.5}, best=True), 0, 0, "own"))

    assert [*shown, phase(stage)] == ["preparing" if epochs else said, said]
