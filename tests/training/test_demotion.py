"""A stage that makes the policy lose what the one before had reached goes back to it, and not for ever."""

import dataclasses
import itertools

import pytest
from building import UNREACHED, Stop, cloning, curriculum, echo, pathological, payloads, tuning
from hypothesis import given
from hypothesis import strategies as st
from refusing import refused

from rlstages import SuccessThreshold, resume, train
from rlstages.events import (
    LookedBack,
    RolloutFinished,
    RunFinished,
    StageCollapsed,
    StageFinished,
    StageStarted,
    Warned,
)
from rlstages.learners.learner import read_policy
from rlstages.play.saved_policies import load_policy
from rlstages.stages.fine_tuning.look_back import stage_to_look_back_at
from rlstages.stages.path import policy_file, returns_from, visit_of, way_from
from rlstages.storage.checkpoints import checkpoint_names, sha256
from rlstages.storage.run_directory import read_events


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    """A run that went back as often as it may."""
    path = tmp_path_factory.mktemp("collapsed") / "run"
    return path, train(pathological(), seed=1, out=path)


def visits(path):
    return [(e.stage_name, e.payload.visit) for e in read_events(path) if isinstance(e.payload, StageStarted)]


@pytest.mark.slow
def test_a_curriculum_that_collapses_again_and_again_comes_to_its_end(collapsed):
    path, result = collapsed

    assert result.outcome == "reached"
    assert visits(path) == [("echo", 1), ("contrary", 1), ("echo", 2), ("contrary", 2), ("echo", 3), ("contrary", 3)]
    assert [(p.visit, p.back_to) for p in payloads(path, StageCollapsed)] == [(1, "echo"), (2, "echo")]
    assert [(p.outcome, p.visit) for p in payloads(path, StageFinished)] == [
        ("reached", 1),
        ("reached", 2),
        ("reached", 3),
        ("missed", 3),
    ]
    assert result.stages["contrary"].visit == 3 and list(result.stages) == ["echo", "contrary"]
    [warned] = payloads(path, Warned)
    assert warned.message == "Stage 'contrary' has gone back 2 times; now it goes on."


@pytest.mark.slow
def test_a_level_that_takes_much_of_the_stage_to_measure_is_told(tmp_path):
    """48 episodes of 32 steps are more than a quarter of 3,000."""
    first = tuning("long", echo(steps=32), until=SuccessThreshold(0.05, margin=0.04, window=4), critic_fit_steps=0)
    then = tuning("short", echo(), until=UNREACHED, critic_fit_steps=0, on_collapse="return", on_timeout="advance")
    for steps, name in ((3_000, "dear"), (9_000, "cheap")):
        train(curriculum(first, dataclasses.replace(then, max_steps=steps), n_epochs=8), out=tmp_path / name)

    [warned] = payloads(tmp_path / "dear", Warned)
    assert warned.message.startswith(
        "To measure what the stage before had reached took 1,536 of this stage's 3,000 steps"
    )
    assert payloads(tmp_path / "cheap", Warned) == []


def test_a_collapse_is_a_bound_under_the_level_beyond_luck(collapsed):
    path, _ = collapsed
    looks = [event.payload for event in read_events(path) if isinstance(event.payload, LookedBack)]

    for ended in payloads(path, StageCollapsed):
        assert ended.decline in [look.decline for look in looks if look.over]
        assert ended.decline.bound < ended.decline.level <= 0.8 - 0.05 - 0.05
        assert ended.reason == f"What the stage before had reached is lost: {ended.decline}."
    assert {look.stage for look in looks} == {"echo"}


def test_steps_never_go_back_and_those_of_looks_count(collapsed):
    path, _ = collapsed
    events = list(read_events(path))
    steps = [event.global_step for event in events]
    assert steps == sorted(steps)
    for before, event in itertools.pairwise(events):
        if isinstance(event.payload, LookedBack):
            assert event.global_step - before.global_step == 4 * 8


def test_every_visit_leaves_a_policy_of_its_own_that_came_from_the_one_before(collapsed):
    path, result = collapsed
    ends = payloads(path, (StageFinished, StageCollapsed))

    assert [end.policy.partition("/")[2].partition(".")[0] for end in ends] == [
        *("00-echo", "01-contrary", "00-echo-2", "01-contrary-2", "00-echo-3", "01-contrary-3")
    ]
    assert [end.parent for end in ends] == [None, *(end.digest for end in ends[:-1])]
    for end in ends:
        assert sha256((path / end.policy).read_bytes()) == end.digest
        read_policy(path / end.policy, end.digest)
    assert sum(name.endswith("-end") for name in checkpoint_names(path / "checkpoints")) == 6
    assert load_policy(path) is not None


def test_no_visit_repeats_the_episodes_of_another(collapsed):
    path, _ = collapsed
    firsts = [
        (one.payload.mean_return, one.payload.success, one.payload.train)
        for start, one in itertools.pairwise(
            event for event in read_events(path) if isinstance(event.payload, (StageStarted, RolloutFinished))
        )
        if isinstance(start.payload, StageStarted)
    ]

    assert len(firsts) == 6
    # A rollout of a policy that stands still tells nothing yet.
    firsts = [first for first in firsts if first[2]]
    assert len(firsts) >= 3
    assert all(one != other for one, other in itertools.combinations(firsts, 2))


def told(path):
    """What the log says, but for times and sessions."""
    rows = []
    for event in read_events(path):
        row = {**vars(event), "payload": dataclasses.asdict(event.payload), "time": None}
        kept = {k: v for k, v in row["payload"].items() if k not in ("seconds", "steps_per_second")}
        if "run_id" not in kept and not isinstance(event.payload, RunFinished):
            rows.append({**row, "payload": kept})
    return rows


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (StageCollapsed, 1),
        *(pytest.param(kind, n, marks=pytest.mark.slow) for kind, n in ((LookedBack, 2), (StageStarted, 3))),
    ],
)
def test_a_run_goes_on_across_a_return_to_the_last_bit(kind, number, collapsed, here):
    whole, result = collapsed

    first = train(pathological(), seed=1, out="run", trackers=[Stop(kind, number)])
    assert first.outcome == "interrupted"
    again = resume("run")

    assert {name: end.digest for name, end in again.stages.items()} == {
        name: end.digest for name, end in result.stages.items()
    }
    assert told(here / "run") == told(whole)


def test_a_stage_goes_on_unless_it_is_told_to_return(here):
    result = train(pathological(on_collapse="go on"), seed=1, out="run")

    assert result.outcome == "reached"
    assert payloads("run", (LookedBack, StageCollapsed)) == []


def test_what_is_kept_is_not_lost(here):
    """The second stage is the first one once more."""
    plan = curriculum(
        tuning("echo", echo(), until=SuccessThreshold(0.8, window=16), max_steps=60_000, critic_fit_steps=0),
        tuning("again", echo(), until=UNREACHED, on_collapse="return", max_steps=5_000, on_timeout="advance"),
        n_epochs=8,
    )

    assert train(plan, seed=1, out="run").outcome == "reached"

    looks = payloads("run", LookedBack)
    assert len(looks) >= 3 and not any(look.decline.lost for look in looks)
    # One episode of each copy in every look, for a twentieth of the steps.
    ended = payloads("run", StageFinished)[-1]
    assert sum(look.decline.episodes for look in looks if look.over) * 8 <= 0.05 * ended.stage_steps


def test_a_first_stage_and_one_after_cloning_cannot_return():

    for stages in ([], [cloning()]):
        with refused("stage-order", where="stage 'tune'", name="on_collapse"):
            curriculum(*stages, tuning(on_collapse="return"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_collapse": "back"}, ("choice-unknown", "stage 'tune'", "on_collapse")),
        ({"max_returns": 0}, ("setting-range", "stage 'tune'", "max_returns")),
    ],
)
def test_settings_that_are_none_are_refused(settings, said):
    with refused(*said):
        tuning(**settings)


@given(
    caps=st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=1, max_size=5),
    luck=st.randoms(use_true_random=False),
)
def test_no_curriculum_loops_for_ever(caps, luck):
    """However often stages collapse, each may go back so many times only."""
    plan = [tuning("first")]
    for number, cap in enumerate(caps):
        more = {} if cap is None else {"on_collapse": "return", "max_returns": cap}
        plan.append(tuning(f"stage {number}", **more))
    total = sum(cap for cap in caps if cap is not None)
    way, stage = (), 0
    while stage < len(plan):
        way += (stage,)
        assert len(way) <= len(plan) + 2 * total
        collapses = stage_to_look_back_at(plan, way) is not None and luck.random() < 0.9
        stage += -1 if collapses else 1

    files = [policy_file(plan, way[: end + 1]) for end in range(len(way))]
    assert len(set(files)) == len(files)
    for index, cap in enumerate(caps, 1):
        assert returns_from(way, index) <= (cap or 0)
    assert visit_of(way) == way.count(len(plan) - 1)
    assert way_from(list(way), plan) == way


@pytest.mark.parametrize("data", [[1], [0, 2], [0, 1, 3], [0, 0], [0, -1], [0, True], ["0"], [0.0]])
def test_a_way_that_no_run_can_have_gone_is_refused(data):
    with pytest.raises(ValueError, match="no run can have entered stages in this order"):
        way_from(data, pathological().stages)
