"""What a real run kept on its way, as the console, `show`, W&B and TensorBoard show it from its event log alone."""

import io
import json

import following
import pytest
import wandb_file
from building import cloning, curriculum, echo, tuning
from rich.console import Console
from test_tensorboard_tracker import scalars

from rlstages import RewardThreshold, train
from rlstages.cli.showing import show_run
from rlstages.events import (
    BaselinesMeasured,
    Evaluated,
    Event,
    HandoverChecked,
    HandoverRecovered,
    Retained,
    RetentionMeasured,
    RunFinished,
    StageFinished,
)
from rlstages.specs.criteria.baselines import Baselines
from rlstages.specs.criteria.episodes import Score
from rlstages.storage.run_directory import read_events
from rlstages.tracking.console import console_tracker
from rlstages.tracking.retention_table import dip_of, handover_lines, kept, matrix_of, print_kept
from rlstages.tracking.state import RunState
from rlstages.tracking.tensorboard import tensorboard_tracker

SHORT, LONG, FAR = echo(acts="box", steps=4), echo(acts="box", steps=8), echo(acts="box", steps=16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A clone that the noise of its first stage destroys, so that the guard goes back to it."""
    path = tmp_path_factory.mktemp("kept") / "run"
    late = {"on_timeout": "advance", "max_steps": 1_300, "until": RewardThreshold(1e9), "evaluation_episodes": 24}
    plan = curriculum(
        cloning("copy", SHORT, episodes=60, max_epochs=40, learning_rate=5e-3, evaluation_episodes=16),
        tuning("short", SHORT, exploration=0.0, guard_steps=256, **late),
        tuning("long", LONG, **late),
        held_out=[FAR],
        retention_share=1.0,
        learning_rate=1e-3,
    )
    train(plan, out=path)
    return path, plan, list(read_events(path))


def state_of(run):
    return RunState(run[1], run[2])


def test_the_matrix_has_a_row_for_each_policy_and_a_column_for_each_environment(run):
    matrix = matrix_of(state_of(run))

    assert matrix.stages == ("copy", "short", "long")
    assert matrix.measure == "normalized"
    assert [(column.name, column.held_out, column.own) for column in matrix.columns] == [
        ("short", False, 1),
        ("long", False, 2),
        ("Echo(acts='box', steps=16)", True, None),
    ]
    assert all(value is not None and value <= 1.0 for column in matrix.columns for value in column.values)
    # What the next stage scored before it began has its place there.
    before = next(e.payload.score for e in run[2] if e.stage_name == "long" and isinstance(e.payload, Evaluated))
    assert matrix.cells[1][1].score == before
    assert 0.0 < matrix.share < 1.0 and matrix.steps > 0


def test_the_console_ends_with_the_matrix_what_it_cost_and_the_handover(run):
    stream = io.StringIO()
    tracker = console_tracker(run[1], terminal=False, stream=stream)
    for event in run[2]:
        tracker(event)
    tracker.close()
    lines = stream.getvalue().splitlines()

    head = next(number for number, line in enumerate(lines) if line.startswith("normalized score in"))
    assert lines[head].split()[3:] == ["short", "long", "Echo(acts='box',", "steps=16)"]
    assert lines[head + 1].split() == ["after", "held", "out"]
    assert "normalized: (score - chance) / (expert - chance)" in lines
    assert [lines[head + n].split()[0] for n in (2, 3, 4)] == ["copy", "short", "long"]
    assert any(line.startswith("These scores took ") and line.endswith("% of the run's time.") for line in lines)
    [handover] = [line for line in lines if line.startswith("hand-over to 'short': a dip of 0.")]
    assert "(normalized), beyond luck, 1 rollback" in handover
    assert any("[2/3 short] hand-over: return" in line and line.endswith("the clone is back") for line in lines)
    assert any(line.startswith("[3/3 long] scores elsewhere (normalized): short ") for line in lines)


def test_show_prints_the_same(run, capsys):
    show_run(run[0], as_json=False)
    assert "hand-over to 'short'" in capsys.readouterr().out

    show_run(run[0], as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["handover"]["short"]["rollbacks"] == 1 and told["handover"]["short"]["normalized"]
    assert list(told["retention"]["short"]["after"]) == ["copy", "short", "long"]
    assert told["retention"]["Echo(acts='box', steps=16)"]["held_out"]
    assert set(told["retention_cost"]) == {"steps", "seconds", "share"}


def test_wandb_has_points_a_table_and_a_summary(run, tmp_path):
    pytest.importorskip("wandb")
    (tmp_path / "run").mkdir()
    following.follow(tmp_path / "run", run[2])
    records = wandb_file.records(*following.logs(tmp_path / "run"))
    history = [wandb_file.items(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]

    rows = [row for row in history if "retention/short/return" in row]
    assert [row["stage/name"] for row in rows] == ["copy", "short", "long"]
    assert rows[-1]["retention/short/normalized"] == kept(state_of(run))["retention"]["short"]["after"]["long"]
    assert "held_out/Echo(acts='box', steps=16)/return" in rows[0]
    assert [row["retention_matrix"]["nrows"] for row in rows] == [3, 6, 9]
    checks = [row for row in history if "handover/return" in row]
    assert checks[0]["handover/clone_return"] > checks[0]["handover/return"] and checks[0]["handover/rollbacks"] == 1
    summary = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            summary |= wandb_file.items(record.summary.update)
    assert summary["handover"]["short"]["rollbacks"] == 1


def test_tensorboard_has_the_points(run, tmp_path):
    tracker = tensorboard_tracker(tmp_path)
    for event in run[2]:
        tracker(event)
    tracker.close()
    found = scalars(tmp_path)

    assert len(found["retention/short/return"]) == len(found["held_out/Echo(acts='box', steps=16)/return"]) == 3
    assert found["handover/rollbacks"][0][1] == 1


def told(*payloads, plan=None, stage=1):
    plan = plan or curriculum(cloning("copy", SHORT), tuning("short", SHORT), tuning("long", LONG))
    state = RunState(plan)
    for payload in payloads:
        state.take(Event(payload, 0, stage, plan.stages[stage].name))
    return state, state.stages[stage]


def scored(success):
    return Score(48, 480, 8 * success, 0.0, 8.0, success, 0.0, 1.0)


def test_the_dip_is_normalised_where_chance_and_the_expert_are_known():
    check = HandoverChecked(1, 900, scored(0.8), scored(0.6), 0.01, True, False)
    state, stage = told(check)
    assert dip_of(state, stage) == (pytest.approx(0.2), False)
    assert handover_lines(state) == ["hand-over to 'short': a dip of 0.20 in success, beyond luck, not recovered yet"]

    baselines = BaselinesMeasured("short", Baselines(scored(0.1), scored(0.9)))
    state, stage = told(check, baselines, HandoverRecovered(2_900, 2_000))
    assert dip_of(state, stage) == (pytest.approx(0.25), True)
    recovered = "a dip of 0.25 (normalized), beyond luck, recovered 2.00k steps after the first update"
    assert handover_lines(state) == [f"hand-over to 'short': {recovered}"]


@pytest.mark.parametrize(
    ("after", "p_value", "fell", "said"),
    [
        (0.55, 0.2, False, "a dip of 0.25{}, which may be luck"),
        (0.78, None, False, "a dip of 0.02{}"),
        (0.55, 0.001, True, "a dip of 0.25{}, beyond luck"),
        (0.8, None, False, "no dip"),
        (0.9, 0.7, False, "no dip"),
    ],
)
def test_the_line_of_the_look_and_the_line_at_the_end_agree(after, p_value, fell, said):
    check = HandoverChecked(1, 900, scored(0.8), scored(after), p_value, fell, False)
    state, stage = told(check)

    assert check.line(stage).endswith(f"after the first updates: {said.format('')}")
    end = ", not recovered yet" if fell else ""
    assert handover_lines(state) == [f"hand-over to 'short': {said.format(' in success')}{end}"]


def retained(*cells, held_out=()):
    names = ("short", "long")
    return RetentionMeasured(
        tuple(Retained(name, "success", cell, None) for name, cell in zip(names, cells, strict=True)),
        tuple(Retained(str(FAR), "success", cell, None) for cell in held_out),
        10,
        0.5,
    )


def shown(state):
    stream = io.StringIO()
    print_kept(state, Console(file=stream, width=120, markup=False))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_matrix_is_normalised_as_a_whole_or_not_at_all_and_the_handover_with_it():
    check = HandoverChecked(1, 900, scored(0.8), scored(0.6), 0.01, True, False)
    known = Baselines(scored(0.1), scored(0.9))
    row, short, long = (
        retained(scored(0.5), scored(0.3)),
        BaselinesMeasured("short", known),
        BaselinesMeasured("long", known),
    )
    half, _ = told(check, row, short)
    whole, _ = told(check, row, short, long)

    assert matrix_of(half).measure == "success"
    assert [column.values for column in matrix_of(half).columns] == [(0.5,), (0.3,)]
    assert handover_lines(half) == ["hand-over to 'short': a dip of 0.20 in success, beyond luck, not recovered yet"]
    assert not any("normalized" in line for line in shown(half))
    assert matrix_of(whole).measure == "normalized"
    assert [column.values for column in matrix_of(whole).columns] == [
        (pytest.approx(0.5),),
        (pytest.approx(0.25),),
    ]
    assert handover_lines(whole) == ["hand-over to 'short': a dip of 0.25 (normalized), beyond luck, not recovered yet"]


def test_scores_without_success_are_told_as_returns_with_all_others():
    lacking = Score(48, 480, 3.0, 0.0, 8.0)
    state, _ = told(retained(scored(0.5), lacking))

    assert matrix_of(state).measure == "return"
    assert [column.values for column in matrix_of(state).columns] == [(4.0,), (3.0,)]


def test_scores_of_few_episodes_and_cells_without_any_are_explained():
    few = Score(8, 64, 0.0, 0.0, 0.0, 0.0, 0.0, 0.32)
    plan = curriculum(
        tuning("short", SHORT), tuning("long", LONG), tuning("again", SHORT), held_out=[FAR], retention_share=0.03
    )
    state, _ = told(retained(scored(0.5), None, held_out=[None]), plan=plan, stage=0)
    state.take(Event(retained(few, scored(0.4), held_out=[few]), 10, 1, "long"))
    lines = shown(state)

    assert lines[2].split() == ["short", "0.50", "-", "-"]
    assert lines[3].split() == ["long", "~0.00", "0.40", "~0.00"]
    assert lines[4:6] == [
        "~ : of 8 episodes only, so it may be luck",
        "- : not played; retention_share=0.03 is spent: raise it, or let rlstages evaluate RUN score the last policy",
    ]
    assert kept(state)["retention"]["short"]["episodes"] == {"short": 48, "long": 8}


def test_an_empty_cell_that_the_next_stage_fills_is_no_lack_of_steps():
    state, _ = told(retained(scored(0.5), None))

    assert matrix_of(state).unplayed == 0


def test_a_missed_run_says_that_its_last_policy_has_no_row():
    missed = StageFinished("missed", "Not reached.", 2_000, 1.0, None, None, None, "policies/a.safetensors", "b")
    state, _ = told(retained(scored(0.5), scored(0.4)))
    for payload, index in ((missed, 2), (RunFinished("missed", "Not reached."), -1)):
        state.take(Event(payload, 10, index, "long" if index > 0 else ""))

    assert "The run stopped in 'long', so its policy has no row: rlstages evaluate RUN scores it." in shown(state)


def test_there_is_no_matrix_before_a_stage_has_ended():
    assert matrix_of(told()[0]) is None
    assert kept(told()[0]) == {"handover": {}}
