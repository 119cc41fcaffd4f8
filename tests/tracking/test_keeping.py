"""What a real run kept on its way, as the console, `show`, W&B and TensorBoard show it from its event log alone."""

import io
import json

import following
import pytest
import wandb_file
from building import cloning, curriculum, echo, tuning
from test_tensorboard_tracker import scalars

from rlstages import RewardThreshold, train
from rlstages.baselines import Baselines
from rlstages.cli.showing import show_run
from rlstages.episodes import Score
from rlstages.events import (
    BaselinesMeasured,
    Evaluated,
    Event,
    HandoverChecked,
    HandoverRecovered,
    Retained,
    RetentionMeasured,
)
from rlstages.storage.rundir import read_events
from rlstages.tracking.console import console_tracker
from rlstages.tracking.keeping import dip_of, handover_lines, kept, matrix_of
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
    assert [(column.name, column.measure, column.held_out, column.own) for column in matrix.columns] == [
        ("short", "normalized", False, 1),
        ("long", "normalized", False, 2),
        ("Echo(acts='box', steps=16)", "normalized", True, None),
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

    head = next(number for number, line in enumerate(lines) if line.startswith("score in"))
    assert lines[head].split() == ["score", "in", "short", "long", "Echo(acts='box',", "steps=16)"]
    assert [lines[head + n].split()[0] for n in (2, 3, 4)] == ["copy", "short", "long"]
    assert any(line.startswith("These scores took ") and line.endswith("% of the run's time.") for line in lines)
    [handover] = [line for line in lines if line.startswith("hand-over to 'short': a dip of 0.")]
    assert "(normalized), 1 rollback" in handover
    assert any("[2/3 short] hand-over: return" in line and line.endswith("the clone is back") for line in lines)
    assert any(line.startswith("[3/3 long] scores elsewhere: short ") for line in lines)


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
    assert handover_lines(state) == ["hand-over to 'short': a dip of 0.20 in success, not recovered yet"]

    baselines = BaselinesMeasured("short", Baselines(scored(0.1), scored(0.9)))
    state, stage = told(check, baselines, HandoverRecovered(2_900, 2_000))
    assert dip_of(state, stage) == (pytest.approx(0.25), True)
    recovered = "a dip of 0.25 (normalized), recovered 2.00k steps after the first update"
    assert handover_lines(state) == [f"hand-over to 'short': {recovered}"]


def test_a_column_is_normalised_as_a_whole_or_not_at_all():
    cells = (Retained("short", "success", scored(0.5), None), Retained("long", "success", None, None))
    state, _ = told(
        RetentionMeasured(cells, (), 10, 0.5), BaselinesMeasured("long", Baselines(scored(0.1), scored(0.9)))
    )
    columns = matrix_of(state).columns

    assert [(column.measure, column.values) for column in columns] == [("success", (0.5,)), ("success", (None,))]


def test_there_is_no_matrix_before_a_stage_has_ended():
    assert matrix_of(told()[0]) is None
    assert kept(told()[0]) == {"handover": {}}
