"""One run of a comparison: what it costs, where it is scored, and that scoring does not change it."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from building import HALF, cloning, curriculum, pathological, payloads, tuning
from comparing import LONG, SHORT, SOON, placed, small_plan
from refusing import refused
from wandb_file import records

from rlstages import train
from rlstages.cli.comparing import load_plan, read_arm
from rlstages.events import DemonstrationsReady, RunFinished, StageFinished
from rlstages.experiments.compare import worker
from rlstages.experiments.compare.arms import make_arms
from rlstages.experiments.compare.curve import grid_interval, read_curve, write_curve
from rlstages.experiments.compare.directory import claim_comparison, run_path
from rlstages.experiments.compare.plan import Plan
from rlstages.experiments.compare.results import read_results
from rlstages.storage.run_directory import read_events

ROLLOUT = 64
"""Of the toy agent; a wave of a confirmation plays no more steps."""


def run_arm(directory, arm, seed, steps, plan=None, **settings):
    return worker.run_arm(directory, plan or small_plan(seeds=(seed,), **settings), arm, seed, steps)


def digests(path):
    return [payload.digest for payload in payloads(path, StageFinished)]


def test_every_arm_spends_the_same_number_of_steps(tmp_path):
    placed(tmp_path, seeds=(0,))
    steps = 1_500

    for arm in ("staged", "scratch"):
        result = run_arm(tmp_path, arm, 0, steps)

        assert (result.outcome, result.reason) == ("paused", "1,500 steps are spent.")
        curve = read_curve(result.path)
        shown = sum(payload.cost for payload in payloads(result.path, DemonstrationsReady))
        spent = list(read_events(result.path))[-1].global_step + shown
        final = curve.final(steps)
        assert steps <= final.cost == spent < steps + ROLLOUT
        assert [score.episodes for score in final.scores] == [16, 16]
        assert (shown > 0) == (arm == "staged")


@pytest.mark.slow
def test_the_first_arm_pauses_when_its_stages_are_done_and_goes_on_to_the_same_bits(tmp_path):
    plan = placed(tmp_path / "two", seeds=(0,))
    placed(tmp_path / "one", seeds=(0,))

    first = run_arm(tmp_path / "two", "staged", 0, None)
    own = read_curve(first.path).own_cost

    assert first.reason == "Its own stages are done." and own is not None
    assert [payload.outcome for payload in payloads(first.path, StageFinished)] == ["completed", "reached", "reached"]
    steps = own + 300
    later = run_arm(tmp_path / "two", "staged", 0, steps)
    at_once = run_arm(tmp_path / "one", "staged", 0, steps)
    assert digests(later.path) == digests(at_once.path)
    assert read_curve(later.path).final(steps) == read_curve(at_once.path).final(steps)
    assert read_curve(at_once.path).own_cost == own
    assert plan.reference == "staged"


def test_scoring_on_the_way_does_not_change_the_run(tmp_path):
    plan = placed(tmp_path, seeds=(0,))
    watched = run_arm(tmp_path, "staged", 0, None)

    alone = train(plan.curriculum, seed=0, out=tmp_path / "alone")

    assert digests(watched.path) == digests(alone.path)


def test_a_run_that_needs_just_the_common_steps_is_not_trained_further(tmp_path):
    placed(tmp_path, seeds=(0,))
    first = run_arm(tmp_path, "staged", 0, None)
    own = read_curve(first.path).own_cost

    run_arm(tmp_path, "staged", 0, own)

    assert read_curve(first.path).final(own).cost == own


def test_cloning_alone_is_trained_no_further_and_is_scored_once(tmp_path):
    placed(tmp_path, seeds=(0,))

    result = run_arm(tmp_path, "clone-only", 0, 4_000)

    curve = read_curve(result.path)
    assert result.outcome == "reached" and curve.final(4_000) == curve.final(9_999) is not None
    assert curve.final(4_000).cost == curve.own_cost


def test_an_arm_that_goes_back_is_not_done_before_its_last_stage_is(tmp_path):
    whole = pathological()
    plan = Plan(whole, make_arms(whole, ["staged"]), (0,), None, episodes=16)

    result = run_arm(tmp_path, "staged", 0, None, plan)

    visits = [(payload.visit, payload.outcome) for payload in payloads(result.path, StageFinished)]
    assert visits == [(1, "reached"), (2, "reached"), (3, "reached"), (3, "missed")]
    last = [event for event in read_events(result.path) if isinstance(event.payload, StageFinished)][-1]
    curve = read_curve(result.path)
    assert curve.own_cost == last.global_step
    assert [mark.stage for mark in curve.marks] == ["echo", "echo", "echo", "contrary"]


def test_a_missed_stage_ends_the_first_arms_own_cost_and_the_next_stage_follows(tmp_path):
    plan = small_plan(seeds=(0,), max_steps=900, learning_rate=1e-9)

    first = run_arm(tmp_path, "staged", 0, None, plan)
    own = read_curve(first.path).own_cost
    later = run_arm(tmp_path, "staged", 0, own + 500, plan)

    assert [(mark.stage, mark.outcome) for mark in read_curve(later.path).marks] == [
        ("clone", "completed"),
        ("short", "missed"),
    ]
    assert list(read_events(later.path))[-2].stage_name == "long"


def test_a_missed_stage_that_the_curriculum_passes_over_is_not_the_end_of_its_own_cost(tmp_path):
    slow = {"max_steps": 900, "on_timeout": "advance"}
    whole = curriculum(
        cloning("clone", SHORT, max_epochs=1, until=HALF, on_failure="advance"),
        tuning("going on in short", SHORT, **slow),
        tuning("long", LONG, **slow),
        learning_rate=1e-9,
    )
    plan = Plan(whole, make_arms(whole, ["staged", "clone-only"]), (0,), episodes=16)

    path = run_arm(tmp_path, "staged", 0, None, plan).path

    curve = read_curve(path)
    assert [(mark.stage, mark.outcome) for mark in curve.marks] == [
        ("clone", "missed"),
        ("going on in short", "missed"),
        ("long", "missed"),
    ]
    assert curve.own_cost == curve.marks[-1].cost
    later = run_arm(tmp_path, "staged", 0, curve.own_cost, plan)
    (end,) = read_results(tmp_path, plan, curve.own_cost, {}).arms[0].runs
    assert later.outcome == "paused" and end.own_cost == curve.own_cost
    assert [mark.stage for mark in end.marks] == ["clone", "going on in short", "long"]


def test_demonstrations_that_are_left_out_and_the_confirmation_of_a_clone_are_paid_for(tmp_path):
    clone = cloning("clone", SHORT, episodes=20, best=5, until=HALF, max_epochs=1)
    whole = curriculum(clone, tuning("long", LONG))
    plan = Plan(whole, make_arms(whole, ["staged", "clone-only"]), (0,), episodes=16)

    for arm in plan.arms:
        path = run_arm(tmp_path, arm, 0, 1_500, plan).path

        (shown,) = payloads(path, DemonstrationsReady)
        cloned = payloads(path, StageFinished)[0].after
        curve, spent = read_curve(path), list(read_events(path))[-1].global_step
        assert (shown.score.steps, shown.recorded_steps) == (20, 80) and cloned.steps > 0
        assert curve.marks[0].cost == 80 + cloned.steps
        assert curve.final(1_500).cost == spent + 80 + cloned.steps
        assert (spent > 0) == (arm == "staged")


def test_no_kill_can_leave_the_end_of_a_stage_without_its_score(tmp_path, monkeypatch):
    placed(tmp_path, seeds=(0,))
    written = []

    def write(run, curve):
        written.append(curve)
        write_curve(run, curve)

    monkeypatch.setattr(worker, "write_curve", write)
    run_arm(tmp_path, "staged", 0, None)

    assert len(written[-1].marks) == 3
    for curve in written:
        assert len(curve.marks) == sum(row.why == "stage" for row in curve.rows)


def test_scores_lie_on_the_grid(tmp_path):
    placed(tmp_path, seeds=(0,))
    steps = 3_000
    curve = read_curve(run_arm(tmp_path, "scratch", 0, steps).path)
    interval = grid_interval(steps, ROLLOUT)

    looks = [row.cost for row in curve.rows if row.why == "grid"]
    assert looks[0] == 0 and len(looks) <= 34
    for point in range(0, steps, interval):
        assert point <= curve.at(point).cost < point + ROLLOUT
    assert all(len(row.scores) == 2 for row in curve.rows)


def test_a_policy_that_is_being_confirmed_is_played_once(tmp_path):
    """A confirmation takes more steps than two points of the grid are apart."""
    plan = placed(tmp_path, seeds=(0,), steps=3_000, until=replace(SOON, frozen_episodes=60))

    rows = read_curve(run_arm(tmp_path, "staged", 0, 3_000, plan).path).rows

    pairs = [(one, two) for one, two in pairwise(rows) if one.changes == two.changes and two.why != "final"]
    assert pairs and all(one.cost < two.cost and one.scores == two.scores for one, two in pairs)
    assert [row.changes for row in rows] == sorted(row.changes for row in rows)
    assert len({row.changes for row in rows}) > 10


def test_scores_after_the_checkpoint_of_a_killed_session_are_made_again(tmp_path):
    placed(tmp_path, seeds=(0,))
    first = run_arm(tmp_path, "staged", 0, None)
    curve = read_curve(first.path)
    beyond = replace(curve.rows[-1], cost=curve.own_cost + 10_000, why="final", steps=curve.own_cost + 300)
    write_curve(first.path, replace(curve, rows=(*curve.rows, beyond)))

    run_arm(tmp_path, "staged", 0, curve.own_cost + 300)

    costs = [row.cost for row in read_curve(first.path).rows]
    assert costs == sorted(costs) and costs[-1] < curve.own_cost + 300 + ROLLOUT


def test_what_a_process_left_that_was_killed_at_its_start_is_cleared(tmp_path):
    placed(tmp_path, seeds=(0,))
    (run_path(tmp_path, "clone-only", 0) / "checkpoints").mkdir(parents=True)

    assert run_arm(tmp_path, "clone-only", 0, 4_000).outcome == "reached"


def test_a_directory_belongs_to_one_curriculum_and_number_of_episodes(tmp_path):
    plan = placed(tmp_path)
    claim_comparison(tmp_path, replace(plan, seeds=(5, 6)))

    with refused("out-taken", name="digest"):
        claim_comparison(tmp_path, small_plan(shown=7))
    with refused("out-taken", name="episodes"):
        claim_comparison(tmp_path, replace(plan, episodes=99))
    (tmp_path / "comparison.json").write_text("{")
    with refused("file-damaged"):
        claim_comparison(tmp_path, plan)


def test_a_run_of_another_curriculum_is_not_taken_for_an_arms(tmp_path):
    plan = placed(tmp_path, seeds=(0,))
    train(plan.arms["clone-only"], seed=0, out=run_path(tmp_path, "scratch", 0))

    with refused("out-taken", where="scratch-s0"):
        claim_comparison(tmp_path, plan)


def test_a_plan_says_what_is_compared(tmp_path):
    plan = small_plan()

    assert plan.environments[0] == LONG and plan.measure == "success" and plan.threshold == 0.5
    assert plan.reference == small_plan(names=["scratch", "staged"]).reference == "staged"
    assert small_plan(names=["clone-only", "scratch", "no-curriculum"]).reference == "scratch"


def test_arms_of_a_users_own_are_the_curriculum_with_other_parameters(tmp_path):
    plan = load_plan("cartpole", {}, ["scratch"], ["short: max_steps=40000"], seeds=[0])

    assert list(plan.arms) == ["scratch", "short"]
    assert [stage.max_steps for stage in plan.arms["short"].stages[1:3]] == [40_000, 40_000]
    assert read_arm("a b: x=1, y=2 z=3") == ("a b", {"x": "1", "y": "2", "z": "3"})


@pytest.mark.slow
@pytest.mark.parametrize("own", ["", "mine"])
def test_weights_and_biases_gets_one_group_with_the_arm_as_a_tag(tmp_path, monkeypatch, own):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_RUN_GROUP", own)
    monkeypatch.setenv("WANDB_TAGS", "a, scratch,b")
    plan = replace(small_plan(seeds=(0,)), track="offline")

    path = run_arm(tmp_path, "scratch", 0, 600, plan).path

    (file,) = path.glob("wandb/**/*.wandb")
    found = {record.WhichOneof("record_type"): record for record in records(file)}
    group = json.loads((tmp_path / "comparison.json").read_text())["group"]
    assert re.fullmatch("compare-small-[0-9a-f]{8}", group)
    assert found["run"].run.run_group == (own or group)
    assert sorted(found["run"].run.tags) == ["a", "b", "scratch"]
    assert found["exit"].exit.exit_code == 0


def test_a_paused_run_says_so_at_its_end(tmp_path):
    placed(tmp_path, seeds=(0,))
    path = run_arm(tmp_path, "scratch", 0, 1_000).path

    assert payloads(path)[-1] == RunFinished("paused", "1,000 steps are spent.")


def test_a_comparison_needs_two_arms_and_a_seed():
    for plan, _said in (
        (small_plan(names=["staged"]), "at least two arms"),
        (small_plan(seeds=()), "or none"),
        (small_plan(seeds=(1, 1)), "given twice"),
    ):
        with refused("comparison-invalid"):
            plan.require_comparable()


def test_a_curriculum_that_has_nothing_to_leave_out_needs_an_arm_of_the_users_own():
    whole = curriculum(tuning("only"))

    with refused("comparison-invalid", name="arms"):
        Plan(whole, make_arms(whole), (0,)).require_comparable()
