"""What `rlstages show` says of a run that has not reached its end, and of a plan."""

import json

import pytest
from building import Stop, cloning, curriculum, payloads, tuning
from refusing import told

from rlstages import RewardThreshold, train
from rlstages.events import Evaluated, RolloutFinished
from rlstages.experiments.compare.arms import staged

NEVER = RewardThreshold(1e9)
PLAN = curriculum(cloning("copy"), tuning("easy", max_steps=2_000, until=NEVER, on_timeout="advance"), tuning("late"))


@pytest.fixture
def stopped(here):
    """A run that was interrupted at the fifth rollout of its second stage."""
    assert train(PLAN, out="run", trackers=[Stop(RolloutFinished, 5)]).outcome == "interrupted"


def row(outcome, name):
    [found] = [line for line in outcome.out.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in found.strip("│").split("│")]


def test_an_interrupted_run_is_said_to_be_interrupted_and_how_it_goes_on(rlstages, stopped):
    shown = rlstages("show", "run")

    assert "run: interrupted, " in shown.out
    assert shown.out.splitlines()[-2:] == [
        "interrupted: Interrupted in stage 'easy'; resume goes on from here.",
        "Go on: rlstages resume run",
    ]


def test_the_stage_under_way_is_shown_with_what_is_known_of_it(rlstages, stopped):
    before = payloads("run", Evaluated)[-1].score.mean_return
    shown, told = rlstages("show", "run"), json.loads(rlstages("show", "run", "--json").out)

    name, outcome, steps, seconds, entered, left = row(shown, "easy")
    assert (name, outcome, steps, seconds, left) == ("easy", "under way", "320", "-", "-")
    assert entered == f"return {before:.2f}"
    assert row(shown, "late") == ["late", "-", "-", "-", "-", "-"]
    assert told["under_way"]["stage"] == "easy" and told["under_way"]["stage_steps"] == 320
    assert told["under_way"]["before"]["mean_return"] == before


def test_a_run_that_was_killed_says_that_it_goes_on(rlstages, stopped, here):
    """The log of a killed run ends anywhere."""
    log = here / "run" / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-2]))

    shown = rlstages("show", "run")

    assert "run: unfinished, " in shown.out
    assert row(shown, "easy")[:3] == ["easy", "under way", "256"]
    assert shown.out.splitlines()[-1] == (
        "If nothing trains it any more, it goes on from its last checkpoint: rlstages resume run"
    )


def test_a_missed_run_says_what_would_give_it_more(rlstages, here):
    train(curriculum(tuning("easy", max_steps=2_000, until=NEVER)), out="run")

    assert rlstages("show", "run").out.splitlines()[-1] == "Give it more: rlstages resume run --max-steps N"


def test_a_run_of_a_comparison_is_gone_on_with_by_its_command(rlstages, here):
    plan = staged(curriculum(tuning("easy", until=NEVER)))
    assert train(plan, out="run", trackers=[Stop(RolloutFinished, 65)]).outcome == "interrupted"

    shown = rlstages("show", "run")

    assert "2. going on in easy: train in Echo until the comparison's steps are spent\n" in shown.out
    assert shown.out.splitlines()[-1] == "The command of its comparison goes on with it."


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("runs/nope", ("file-missing", "runs/nope", "")),
        ("nope", ("name-unknown", "", "curriculum")),
        ("runs", ("file-missing", "runs", "")),
        ("runs/compared", ("option-invalid", "runs/compared", "")),
        ("runs/swept", ("option-invalid", "runs/swept", "")),
    ],
)
def test_what_is_no_run_directory_is_said_to_be_none(given, wrong, rlstages, here):
    for folder, file in (("compared", "comparison.json"), ("swept", "sweep.json")):
        (here / "runs" / folder).mkdir(parents=True)
        (here / "runs" / folder / file).touch()

    outcome = rlstages("show", given)

    assert outcome.code == 2 and told(outcome.error) == wrong, outcome.err


def test_the_help_of_show_names_run_directories(rlstages):
    assert "run directory" in " ".join(rlstages("show", "--help").out.replace("│", " ").split())
