"""A stage that collapsed, and one that ran twice, as the readers of the event log show them."""

import dataclasses
import io
import json

import following
import pytest
import wandb_file
from building import curriculum, echo, tuning
from refusing import refused
from rich.console import Console

from rlstages.cli.showing import show_run
from rlstages.events import (
    Event,
    LookedBack,
    RolloutFinished,
    RunStarted,
    StageCollapsed,
    StageFinished,
    StageStarted,
)
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Episode, score
from rlstages.storage.record import new_record, write_record
from rlstages.storage.run_directory import read_events
from rlstages.tracking.console import console_tracker
from rlstages.tracking.ladder import UNICODE, ladder
from rlstages.tracking.metrics import metrics
from rlstages.tracking.state import RunState

PLAN = curriculum(tuning("easy", echo()), tuning("hard", echo(steps=9), on_collapse="return"))
LOST = Decline(True, "success", 0.2, 0.5, 0.7, 16)
SCORE = score([Episode(0, number, 5.0, 8, True) for number in range(10)])


def story():
    """Both stages, back to the first, and to the second again."""
    told, steps = [Event(RunStarted("abcd1234", PLAN, 0, {"rlstages": "0"}), 0, time=1e9)], [0]

    def tell(index, payload):
        steps[0] += 100
        name = PLAN.stages[index].name
        told.append(Event(payload, steps[0], index, name, 1e9 + len(told)))

    def start(index, visit):
        stage = PLAN.stages[index]
        tell(index, StageStarted("FineTuning", str(stage), stage.max_steps, None, "x", 0.5, visit))
        tell(index, RolloutFinished("training", 64 * visit, 8, 1.0, 0.5, 8.0, 0.5, 0.5, {}, 1e3, "waiting"))

    def end(index, visit, parent):
        digest = f"{index}{visit}" * 32
        file = f"policies/{index}-{visit}.safetensors"
        if index == 1 and visit == 1:
            tell(1, LookedBack(1, "easy", 700, Decline(False, "success", 0.5, 0.9, 0.7, 8), False))
            tell(1, LookedBack(1, "easy", 800, LOST, True))
            tell(1, StageCollapsed("easy", "It is lost.", 800, 2.0, LOST, file, digest, parent, visit))
        else:
            payload = StageFinished("reached", "Done.", 640, 3.0, SCORE, SCORE, None, file, digest, parent, visit)
            tell(index, payload)
        return digest

    parent = None
    for index, visit in ((0, 1), (1, 1), (0, 2), (1, 2)):
        start(index, visit)
        parent = end(index, visit, parent)
    return told


def until(kind, number=0):
    told = story()
    place = [at for at, event in enumerate(told) if isinstance(event.payload, kind)][number]
    return told[: place + 1]


def rows(state):
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(ladder(state, UNICODE, 100))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_ladder_shows_what_collapsed_and_what_runs_again():
    collapsed = rows(RunState(PLAN, until(StageCollapsed)))
    assert collapsed[2].startswith("✗ hard collapsed")
    again = rows(RunState(PLAN, until(RolloutFinished, 2)))
    assert again[1].startswith("▶ easy (2) training") and again[2].startswith("✗ hard collapsed")
    ended = rows(RunState(PLAN, story()))
    assert ended[1].startswith("✓ easy (2) reached") and ended[2].startswith("✓ hard (2) reached")


def test_a_visit_begins_with_nothing_of_the_one_before():
    state = RunState(PLAN, until(StageStarted, 2))

    easy, hard = state.stages
    assert (easy.finished, easy.last(RolloutFinished), easy.steps, len(easy.curve), easy.visit) == (None, None, 0, 0, 2)
    assert hard.last(StageCollapsed) is not None and hard.steps == 800
    assert list(state.ends) == [(0, 1), (1, 1)]


def test_plain_lines_tell_of_looks_that_are_over_and_of_the_return():
    stream = io.StringIO()
    tracker = console_tracker(PLAN, terminal=False, stream=stream)
    for event in story():
        tracker(event)
    tracker.close()

    lines = stream.getvalue().splitlines()
    looks = [line for line in lines if "look back" in line]
    assert looks == [
        "[2/2 hard] look back at easy: success 0.20 over 16 episodes, at most 0.50 beyond luck; below 0.70 it is lost"
    ]
    assert "[2/2 hard] collapsed after 800 steps, 2.0 s, back to 'easy': It is lost." in lines
    assert any(line.startswith("[1/2 easy] train in Echo") and line.endswith(", visit 2") for line in lines)


def test_events_of_a_return_are_read_back_and_have_metrics():
    for event in story():
        back = Event.from_data(json.loads(event.to_json()))
        assert back.payload == event.payload
    [look] = [event for event in story() if isinstance(event.payload, LookedBack) and event.payload.over]
    assert metrics(look) == {
        "eval/look_back_value": 0.2,
        "eval/look_back_bound": 0.5,
        "eval/look_back_level": 0.7,
        "stage/steps": 800.0,
    }


def test_wandb_has_a_row_and_a_policy_for_each_visit(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for event in story():
        if isinstance(event.payload, (StageFinished, StageCollapsed)):
            file = tmp_path / event.payload.policy
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(event.payload.policy.encode())

    assert following.follow(tmp_path, story()) == []

    records = wandb_file.records(following.logs(tmp_path)[0])
    history = [wandb_file.items(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
    table = [row["stages"] for row in history if "stages" in row][-1]
    (files,) = [path.parent for path in tmp_path.glob("wandb/offline-run-*/files")]
    table = json.loads((files / "files" / table["path"]).read_text())
    shown = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["stage"], row["visit"], row["outcome"], row["steps"]) for row in shown] == [
        ("easy", 1, "reached", 640),
        ("hard", 1, "collapsed", 800),
        ("easy", 2, "reached", 640),
        ("hard", 2, "reached", 640),
    ]
    assert (shown[1]["after"], shown[1]["bound"], shown[1]["threshold"]) == (0.2, 0.5, 0.7)
    kept = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact" and r.artifact.type == "model"]
    about = [json.loads(one.metadata) for one in kept]
    assert [(one["stage"], one["visit"], one["outcome"]) for one in about] == [
        ("easy", 1, "reached"),
        ("hard", 1, "collapsed"),
        ("easy", 2, "reached"),
        ("hard", 2, "reached"),
    ]
    assert [one["parent"] for one in about] == [None, *(one["digest"] for one in about[:-1])]


def test_a_policy_of_a_collapsed_stage_may_not_lie_outside_of_the_run(tmp_path):
    write_record(tmp_path, new_record(PLAN, 0, {}, {}))
    told = [
        dataclasses.replace(event, payload=dataclasses.replace(event.payload, policy="../outside.safetensors"))
        if isinstance(event.payload, StageCollapsed)
        else event
        for event in story()
    ]
    following.write(tmp_path, told)

    with refused("file-damaged", where="events.jsonl, line 9"):
        list(read_events(tmp_path))


def test_show_tells_visits_and_collapses(tmp_path, capsys):
    write_record(tmp_path, new_record(PLAN, 0, {}, {}))

    for kind, told in (("collapsed", until(StageCollapsed)), ("reached", story())):
        following.write(tmp_path, told)
        show_run(tmp_path, as_json=False)
        out = " ".join(capsys.readouterr().out.split())
        assert f"│ hard{' (2)' if kind == 'reached' else ''} │ {kind} │" in out
