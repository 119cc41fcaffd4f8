"""What a policy that leaves a stage scores elsewhere: what it costs, and that nothing that is trained depends on it."""

import dataclasses
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from building import HALF, Recorder, Stop, cloning, curriculum, echo, learner_for, payloads, tuning
from hypothesis import given, settings
from hypothesis import strategies as some
from refusing import refused

from rlstages import Environment, Expert, RewardThreshold, resume, train
from rlstages.events import (
    BaselinesMeasured,
    Evaluated,
    Event,
    Judged,
    RetentionMeasured,
    RolloutFinished,
    StageFinished,
)
from rlstages.play.retention import FREE_STEPS, MOST_EPISODES, WAVE, Retention
from rlstages.reproducibility import random_state
from rlstages.specs.criteria.episodes import Episode, score
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint
from rlstages.storage.run_directory import read_events

SHORT, LONG, FAR = echo(steps=4), echo(steps=8), echo(steps=16)
NEVER = RewardThreshold(1e9)


def ladder(**more):
    """A clone and two stages that never reach their thresholds, and go on."""
    late = {"on_timeout": "advance", "max_steps": 1_000, "until": NEVER}
    return curriculum(
        cloning("copy", SHORT, evaluation_episodes=8),
        tuning("short", SHORT, **late),
        tuning("long", LONG, **late),
        **{"held_out": [FAR], "retention_share": 1.0, **more},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("retention") / "run"
    train(ladder(), out=path)
    return path


def rows(path):
    return {
        event.stage_name: event.payload for event in read_events(path) if isinstance(event.payload, RetentionMeasured)
    }


def test_after_each_stage_the_policy_is_scored_in_all_environments_and_in_those_held_out(run):
    found = rows(run)

    assert list(found) == ["copy", "short", "long"]
    for row in found.values():
        assert [cell.environment for cell in row.scores] == ["short", "long"]
        assert [cell.environment for cell in row.held_out] == ["Echo(steps=16)"]
        assert row.held_out[0].score.episodes >= 4
    assert found["long"].scores[0].score.steps == 4 * found["long"].scores[0].score.episodes


def test_no_environment_is_played_in_twice_for_the_same_policy(run):
    found = rows(run)
    after = {
        event.stage_name: event.payload.after for event in read_events(run) if isinstance(event.payload, StageFinished)
    }
    assert found["copy"].scores[0].score == after["copy"]
    assert found["long"].scores[1].score == after["long"]
    # The next stage scores the policy before it begins.
    assert found["short"].scores[1].score is None
    assert [event.stage_name for event in read_events(run) if isinstance(event.payload, Evaluated)].count("long") == 2


def test_scores_are_put_on_the_scale_of_chance_and_the_expert(run):
    baselines = {told.environment: told.baselines for told in payloads(run, BaselinesMeasured)}
    assert list(baselines) == ["short", "long", "Echo(steps=16)"]
    assert baselines["long"].expert.mean_return == 8.0
    assert 1.0 < baselines["long"].random.mean_return < 4.5
    cell = rows(run)["long"].scores[1]
    low = baselines["long"].random.mean_return
    assert cell.measure == "return"
    assert cell.normalized == pytest.approx((cell.score.mean_return - low) / (8.0 - low))


def rollouts(path):
    return [dataclasses.replace(told, steps_per_second=0.0) for told in payloads(path, RolloutFinished)]


def test_nothing_that_is_trained_depends_on_it(run, tmp_path):
    digests = [stage.digest for stage in payloads(run, StageFinished)]
    for share in (0.0, 0.05):
        path = tmp_path / f"run{share}"
        train(ladder(retention_share=share), out=path)
        assert [stage.digest for stage in payloads(path, StageFinished)] == digests
        told, same = (
            [dataclasses.replace(p, steps_per_second=0.0) for p in payloads(p, RolloutFinished)] for p in (run, path)
        )
        assert told == same


def test_it_is_off_where_its_share_is_nothing(tmp_path):
    train(ladder(retention_share=0.0), out=tmp_path / "run")

    assert not payloads(tmp_path / "run", RetentionMeasured) and not payloads(tmp_path / "run", BaselinesMeasured)


def test_held_out_environments_open_no_gate(tmp_path):
    """The policy is perfect where it is never trained, and the gate of the stage stays shut."""
    plan = curriculum(
        tuning("never", Environment("toys:Never"), critic_fit_steps=0, max_steps=1_000, on_timeout="advance"),
        held_out=[Environment("toys:Always")],
        retention_share=1.0,
    )
    result = train(plan, out=tmp_path / "run")

    [row] = rows(tmp_path / "run").values()
    assert row.held_out[0].score.success == 1.0 and row.scores[0].score.success == 0.0
    assert result.stages["never"].outcome == "missed"
    assert not any(judged.verdict.met for judged in payloads(tmp_path / "run", Judged))


def test_held_out_environments_are_tried_before_step_0():
    plan = curriculum(tuning(), held_out=[echo(fault="error", fault_step=1)])

    with refused("environment-invalid", where="held_out: Echo(fault='error', fault_step=1)"):
        train(plan, out="run")


def test_an_expert_that_cannot_play_elsewhere_leaves_scores_as_they_are(tmp_path):
    plan = curriculum(
        cloning("copy", SHORT, expert=Expert("toys:tell_short", episodes=8)),
        tuning("long", LONG, max_steps=1_000, on_timeout="advance", until=NEVER),
        retention_share=1.0,
    )
    train(plan, out=tmp_path / "run")

    told = {one.environment: one.baselines for one in payloads(tmp_path / "run", BaselinesMeasured)}
    assert told["copy"].expert.mean_return == 4.0
    assert told["long"].expert is None and "it knows only 4 steps" in told["long"].reason
    last = rows(tmp_path / "run")["long"]
    assert last.scores[0].normalized is not None and last.scores[1].normalized is None


class Looking:
    """A retention of its own, stepped by hand after some steps of a run."""

    def __init__(self, plan, global_step=0, seed=0):
        self.learner = learner_for(plan.stages[0].environment, plan.agent, seed)
        self.learner.global_step = global_step
        self.recorder = Recorder()
        emit = lambda payload: self.recorder(Event(payload, self.learner.global_step))  # noqa: E731
        self.retention = Retention(plan, self.learner, 0, emit)

    def finish(self):
        while self.retention.is_due:
            self.retention.step()
        self.retention.close()
        return self.recorder.payloads(RetentionMeasured)[-1]


@settings(max_examples=8)
@given(some.floats(0.001, 0.5), some.lists(some.integers(0, 20_000), min_size=3, max_size=3))
def test_it_takes_its_share_of_the_steps_and_one_piece_more(share, trained):
    plan = ladder(retention_share=share)
    looking = Looking(plan)
    # The longest piece: the expert and chance, each for eight episodes of 16 steps.
    piece = 2 * WAVE * 16
    for stage, steps in enumerate(trained):
        looking.learner.global_step += steps
        looking.retention.begin(stage, None)
        looking.finish()
        allowed = max(share * looking.learner.global_step, min(FREE_STEPS, share * 2_000) * (stage + 1) / 3)
        # The last policy is scored everywhere once, whatever was taken before.
        assert looking.retention.steps <= allowed + piece + (stage == 2) * 4 * (4 + 8 + 16)


def test_the_last_policy_is_scored_everywhere_once_though_the_share_is_spent():
    for stage, scored in ((1, False), (2, True)):
        looking = Looking(ladder(retention_share=0.05), global_step=1_000)
        looking.retention.steps = 10**6
        looking.retention.begin(stage, None)
        row = looking.finish()
        episodes = [0 if cell.score is None else cell.score.episodes for cell in (*row.scores, *row.held_out)]
        assert episodes == ([4, 4, 4] if scored else [0, 0, 0])


def test_where_no_policy_has_played_one_plays_first():
    looking = Looking(ladder(retention_share=0.03))
    for steps, has_long, has_far in ((0, True, False), (1_200, False, True)):
        looking.learner.global_step = steps
        looking.retention.begin(0, None)
        row = looking.finish()
        assert (row.scores[1].score is not None, row.held_out[0].score is not None) == (has_long, has_far)


def test_more_than_first_waves_leaves_steps_for_those_of_the_last_policy():
    looking = Looking(ladder(retention_share=0.05), global_step=20_000)
    looking.retention.begin(1, None)
    looking.finish()

    assert 1_000 - 4 * (8 + 16 + 16) - 2 * WAVE * 16 <= looking.retention.steps <= 1_000 - 4 * (8 + 16)


@pytest.mark.parametrize(("steps", "measured"), [(6_000, 0), (20_000, 3)])
def test_chance_and_the_expert_play_in_all_environments_or_in_none(steps, measured):
    looking = Looking(ladder(retention_share=0.05), global_step=steps)
    looking.retention.begin(2, None)
    looking.finish()

    assert len(looking.recorder.payloads(BaselinesMeasured)) == measured


def test_a_long_run_plays_more_episodes_up_to_a_limit():
    few, many = Looking(ladder(retention_share=0.05)), Looking(ladder(retention_share=0.05), global_step=10**6)
    for looking in (few, many):
        looking.retention.begin(2, None)
    short, long = few.finish().scores[0], many.finish().scores[0]

    assert short.score.episodes == 4
    assert long.score.episodes == MOST_EPISODES


def test_the_policy_and_the_random_generators_are_as_before():
    looking = Looking(ladder())
    before, weights = random_state(), looking.learner.weights()
    looking.retention.begin(2, None)
    looking.finish()

    np.testing.assert_equal(random_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in looking.learner.weights().items())
    assert looking.learner.global_step == 0


@pytest.mark.parametrize("pieces", range(5))
def test_a_row_that_is_gone_on_with_tells_the_same(pieces, tmp_path):
    own = score([Episode(0, n, 4.0, 4, True) for n in range(8)])
    whole = Looking(ladder(retention_share=0.05), global_step=10_000)
    whole.retention.begin(1, own)
    expected = whole.finish()
    first = Looking(ladder(retention_share=0.05), global_step=10_000)
    first.retention.begin(1, own)
    for _ in range(pieces):
        first.retention.step()
    first.retention.close()
    write_checkpoint(tmp_path, "1", {"retention": first.retention.state_dict()})

    again = Looking(ladder(retention_share=0.05), global_step=10_000)
    again.retention.load_state_dict(read_checkpoint(tmp_path / "1")["retention"])
    again.learner.load_policy(first.learner.weights())
    told = again.finish() if again.retention.is_due else first.recorder.payloads(RetentionMeasured)[-1]

    assert dataclasses.replace(told, seconds=0.0) == dataclasses.replace(expected, seconds=0.0)
    assert again.retention.steps == whole.retention.steps
    both = first.recorder.payloads(BaselinesMeasured) + again.recorder.payloads(BaselinesMeasured)
    assert both == whole.recorder.payloads(BaselinesMeasured)


@pytest.mark.parametrize(("kind", "number"), [(BaselinesMeasured, 1), (BaselinesMeasured, 3), (RetentionMeasured, 3)])
def test_a_run_interrupted_between_two_stages_goes_on_there(kind, number, run, tmp_path):
    path = tmp_path / "run"
    first = train(ladder(), out=path, trackers=[Stop(kind, number)])
    assert first.outcome in ("interrupted", "reached")
    if kind is BaselinesMeasured:
        assert first.reason == "Interrupted between two stages; resume goes on from here."
    again = resume(path)

    assert again.outcome == "reached"
    for found in (BaselinesMeasured, RetentionMeasured, StageFinished, Evaluated):
        told, expected = ([_timeless(p) for p in payloads(which, found)] for which in (path, run))
        assert told == expected


def _timeless(payload):
    return dataclasses.replace(payload, seconds=0.0) if hasattr(payload, "seconds") else payload


def test_success_is_measured_where_the_gate_asks_for_it():
    looking = Looking(curriculum(tuning("long", LONG, until=HALF), retention_share=1.0))
    looking.retention.begin(0, None)

    assert looking.finish().scores[0].measure == "success"


def test_a_share_out_of_range_is_refused():
    for share in (-0.1, 1.5, "all"):
        with refused(ANY, where="curriculum 'tiny'", name="retention_share"):
            ladder(retention_share=share)
