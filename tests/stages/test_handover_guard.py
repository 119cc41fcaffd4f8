"""The guard of the hand-over goes back to the clone after a real drop, so often at most, and leaves all else alone."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from building import QUICK, Recorder, agent, cloning, echo, learner_for, mostly_slow, tuning
from hypothesis import assume, example, given
from hypothesis import strategies as some
from refusing import refused
from scipy import stats
from stepping import Tune, cloned, context_for, same

from rlstages import RewardThreshold, SuccessThreshold
from rlstages.events import Evaluated, Event, HandoverChecked, HandoverRecovered, Warned
from rlstages.learners.algorithms.on_policy.protocol import critic_parameters
from rlstages.learners.normalizer import normalizer_of
from rlstages.reproducibility import set_random_state
from rlstages.specs.criteria.episodes import Episode
from rlstages.stages.cloning import CloningRunner
from rlstages.stages.fine_tuning.handover_guard import HandoverGuard, p_value_of_drop
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint

NEVER = RewardThreshold(1e9)
HARMFUL = {
    "noise": ("box", {"exploration": 0.0, "learning_rate": 1e-3}),
    "learning rate": ("discrete", {"learning_rate": 1.0}),
}


@pytest.fixture(params=["torch", "numpy"])
def engine(request, monkeypatch):
    """Play with both engines."""
    monkeypatch.setitem(QUICK, "engine", request.param)


def clone(acts="discrete", **settings):
    """A learner that has really been cloned, and acts nearly as the expert does."""
    learner = learner_for(echo(acts=acts), agent(**settings), seed=7)
    learner.load_state_dict(cloned_state(acts, **{**QUICK, **settings}))
    return learner


@cache
def cloned_state(acts, **settings):
    environment = echo(acts=acts)
    learner = learner_for(environment, agent(**settings))
    stage = cloning(environment=environment, episodes=60, max_epochs=40, batch_size=32, learning_rate=5e-3)
    with TemporaryDirectory() as folder:
        runner = CloningRunner(context_for(stage, learner, emit=Recorder(), run=Path(folder)))
        while runner.result is None:
            runner.step()
        runner.close()
    return learner.state_dict()


def harmed(harm, guard_rollbacks, **settings):
    """A stage whose first updates destroy the clone."""
    acts, setting = HARMFUL[harm]
    environment = echo(acts=acts)
    given = {"until": NEVER, "max_steps": 1_900, "on_timeout": "advance", "evaluation_episodes": 48, "guard_steps": 512}
    stage = tuning(environment=environment, guard_rollbacks=guard_rollbacks, **{**given, **setting, **settings})
    return Tune(stage, clone(acts), index=1)


@pytest.mark.parametrize("harm", HARMFUL)
def test_after_a_destructive_start_the_clone_comes_back_and_is_kept(harm, engine):
    tune = harmed(harm, guard_rollbacks=5)
    result = tune.finish()

    first, *later = tune.recorder.payloads(HandoverChecked)
    assert first.before == result.before and first.before.mean_return > 7.5
    assert first.after.mean_return < 6.5 and first.fell and first.rolled_back
    assert [check.rolled_back for check in later][-1:] == [False]
    assert result.after.mean_return > 7.5
    assert not tune.recorder.payloads(Warned)


@pytest.mark.parametrize("harm", HARMFUL)
def test_without_the_guard_it_is_lost(harm, engine):
    off, looking = (
        harmed(harm, **settings) for settings in ({"guard_rollbacks": 5, "guard_steps": 0}, {"guard_rollbacks": 0})
    )

    assert off.finish().after.mean_return < 6.0
    assert not off.recorder.payloads(HandoverChecked)
    assert looking.finish().after.mean_return < 6.0
    [check] = looking.recorder.payloads(HandoverChecked)
    assert check.fell and not check.rolled_back
    [warned] = looking.recorder.payloads(Warned)
    assert "The first updates took the clone from " in warned.message and "lower learning_rate" in warned.message


def test_what_comes_back_is_the_clone_with_its_noise_statistics_and_critic(engine):
    environment = echo(acts="box")
    learner = clone("box", normalize_observations=True)
    stage = tuning(environment=environment, until=NEVER, evaluation_episodes=48, guard_steps=256, exploration=0.0)
    before = learner.weights()
    tune = Tune(stage, learner, index=1)
    while tune.runner.phase != "training":
        fitted, count = learner.weights(), normalizer_of(learner.policy).standardizers["obs_"].count.item()
        tune.runner.step()
    while not tune.recorder.payloads(HandoverChecked):
        tune.runner.step()

    own = {id(parameter) for parameter in critic_parameters(learner.policy)}
    critic = {name for name, parameter in learner.policy.named_parameters() if id(parameter) in own}
    actor = {name for name, _ in learner.policy.named_parameters()} - critic
    now = learner.weights()
    assert all(torch.equal(now[name], before[name]) for name in actor)
    assert all(torch.equal(now[name], fitted[name]) for name in critic)
    assert not same({name: before[name] for name in critic}, now)
    assert normalizer_of(learner.policy).standardizers["obs_"].count.item() == count
    assert not learner.policy.optimizer.state
    assert tune.runner.parts.recent.episodes == []


def test_then_steps_are_half_as_large_and_the_anchor_pulls_twice_as_much():
    settings = {"learning_rate": 8e-3, "anchor_kl": 0.5, "anchor_steps": 10**9, "exploration": 0.0}
    environment = echo(acts="box")
    stage = tuning(environment=environment, until=NEVER, evaluation_episodes=48, guard_steps=256, **settings)
    tune = Tune(stage, clone("box"), index=1)
    used = []
    update = tune.learner.algorithm.engine.update
    tune.learner.algorithm.engine.update = lambda buffer, given, terms: (
        used.append((given, terms[0].weight)),
        update(buffer, given, terms),
    )[1]
    while len(tune.recorder.payloads(HandoverChecked)) < 2:
        tune.runner.step()
    tune.steps(1)

    (first, pull), (second, twice) = used[0], used[4]
    assert (first["learning_rate"], first["clip_range"], pull) == pytest.approx((8e-3, 0.2, 0.5), rel=1e-6)
    assert (second["learning_rate"], second["clip_range"], twice) == pytest.approx((4e-3, 0.1, 1.0), rel=1e-6)
    assert used[-1][0]["learning_rate"] == 4e-3


def test_steps_before_a_rollback_stay_counted_and_so_do_those_of_the_look():
    tune = harmed("noise", guard_rollbacks=1)
    while not tune.recorder.payloads(HandoverChecked):
        tune.runner.step()

    [check] = tune.recorder.payloads(HandoverChecked)
    played = 64 * len(tune.rollouts()) + check.after.steps
    assert check.rolled_back
    assert tune.runner.stage_steps == tune.learner.global_step == check.stage_steps == played
    assert tune.recorder.events[-1].global_step == played


def test_recovery_is_told_once_in_steps_since_the_first_update():
    tune = harmed("noise", guard_rollbacks=5)
    tune.finish()

    [recovered] = tune.recorder.payloads(HandoverRecovered)
    [check] = [check for check in tune.recorder.payloads(HandoverChecked) if check.rolled_back]
    assert recovered.stage_steps > check.stage_steps
    assert recovered.steps == recovered.stage_steps - tune.runner.stage.critic_fit_steps


def test_a_clone_that_is_not_harmed_is_looked_at_once_and_left_alone():
    stage = tuning(until=NEVER, max_steps=1_200, evaluation_episodes=48, guard_steps=256)
    guarded = Tune(stage, clone(), index=1)
    guarded.finish()

    [check] = guarded.recorder.payloads(HandoverChecked)
    assert not check.fell and not check.rolled_back
    assert {event.train["learning_rate"] for event in guarded.rollouts() if event.phase == "training"} == {1e-2}


def test_training_episodes_raise_the_suspicion_and_only_those_played_after_an_update():
    guard, recorder = guard_of(tuning(until=NEVER, guard_steps=100))
    high, low = played([8.0] * 48), played([1.0] * 16)
    guard.begin(high, 0)
    guard.note(low)
    assert not guard.wants_a_look(64)
    guard.note(low)
    assert guard.wants_a_look(128)

    guard, recorder = guard_of(tuning(until=NEVER, guard_steps=100))
    guard.begin(high, 0)
    guard.wants_a_look(64)
    guard.note(high)
    assert not guard.wants_a_look(256)
    [check] = recorder.payloads(HandoverChecked)
    assert (check.before.episodes, check.after.episodes, check.p_value) == (48, 48, None)
    guard.note(low)
    assert not guard.wants_a_look(512)
    assert len(recorder.payloads(HandoverChecked)) == 1


def test_the_look_ends_with_the_first_wave_that_shows_no_drop():
    guard, recorder = guard_of(tuning(until=NEVER, guard_steps=100))
    guard.begin(played([8.0, 7.0, 9.0, 8.0] * 3), 0)

    assert guard.judge(played([1.0, 7.0, 8.0, 8.0]), 200) is None
    assert guard.waves == 1
    assert guard.judge(played([10.0, 9.0, 10.0, 9.0]), 250) is False
    [check] = recorder.payloads(HandoverChecked)
    assert (check.before.episodes, check.after.episodes, check.fell) == (12, 8, False)


def test_training_episodes_say_nothing_about_a_deterministic_policy():
    environment = echo()
    learner = learner_for(environment, agent(action_mode="deterministic"))
    guard, _ = guard_of(tuning(until=NEVER, guard_steps=100), learner)
    guard.begin(played([8.0] * 48), 0)
    guard.wants_a_look(64)
    guard.note(played([8.0] * 16))

    assert guard.wants_a_look(128)


def test_a_gate_that_opens_before_the_look_says_how_far_the_policy_fell():
    sure = SuccessThreshold(0.95, margin=0.02, window=4)
    stage = tuning(until=sure, critic_fit_steps=0, evaluation_episodes=16, guard_steps=10**6)
    tune = Tune(stage, clone(), index=1)
    result = tune.finish()

    [check] = tune.recorder.payloads(HandoverChecked)
    assert result.outcome == "reached"
    assert (check.before, check.after, check.fell) == (result.before, result.after, False)


def test_only_what_comes_from_cloning_and_was_scored_is_guarded():
    stage = tuning(until=NEVER, max_steps=1_200, evaluation_episodes=16, guard_steps=128)
    fresh = Tune(stage)
    unscored = Tune(replace(stage, evaluation_episodes=0), clone(), index=1)

    for tune in (fresh, unscored):
        tune.finish()
        assert not tune.recorder.payloads(HandoverChecked)


def guard_of(stage, learner=None):
    recorder = Recorder()
    learner = learner or cloned(learner_for(stage.environment))
    return HandoverGuard(stage, learner, lambda payload: recorder(Event(payload, 0))), recorder


def played(values, solved=None):
    return [Episode(n, 0, value, 8, None if solved is None else solved[n]) for n, value in enumerate(values)]


def test_the_clone_comes_back_no_more_often_than_is_allowed():
    guard, recorder = guard_of(tuning(until=NEVER, guard_rollbacks=2, guard_steps=100))
    high, low = played([8.0 + n % 3 for n in range(48)]), played([1.0 + n % 5 for n in range(48)])
    guard.begin(high, 128)
    steps, backs = 128, []
    for _ in range(12):
        steps += 50
        guard.note(low[:8])
        if guard.wants_a_look(steps):
            backs.append(guard.judge(low, steps))

    assert backs == [True, True, False]
    assert (guard.step_scale, guard.anchor_scale) == (0.25, 4.0)
    assert [check.attempt for check in recorder.payloads(HandoverChecked)] == [1, 2, 3]
    [warned] = recorder.payloads(Warned)
    assert "from 9 to 2.94, after 2 rollbacks" in warned.message
    assert guard.state_dict()["kept"] is None


def test_what_is_asked_of_the_stage_is_what_is_compared():
    solved, failed = [True] * 48, [n % 2 == 0 for n in range(48)]
    by_success, _ = guard_of(tuning(until=SuccessThreshold(0.5), guard_steps=1))
    by_return, _ = guard_of(tuning(until=NEVER, guard_steps=1))
    for guard in (by_success, by_return):
        guard.begin(played([1.0] * 48, solved), 0)

    assert by_success.judge(played([2.0] * 48, failed), 1)
    assert not by_return.judge(played([2.0] * 48, failed), 1)


def test_a_drop_that_is_sure_but_small_is_none():
    guard, recorder = guard_of(tuning(until=NEVER, guard_steps=1))
    guard.begin(played([500.0] * 48), 0)

    assert not guard.judge(played([499.0] * 48), 1)
    assert recorder.payloads(HandoverChecked)[0].p_value == 0.0


@given(some.lists(some.floats(-1e6, 1e6), min_size=2, max_size=60), some.floats(0.0, 1e3))
@example([0.0] * 4, 1.1125369292536007e-308)
def test_the_p_value_is_one_and_falls_as_the_drop_grows(values, drop):
    before = np.array(values)
    noise = np.resize([0.0, 1.0, -1.0], len(before))
    less, more = (p_value_of_drop(before, before + noise - by) for by in (drop, 2 * drop + 1.0))

    assert 0.0 <= more <= less <= 1.0


@given(some.lists(some.tuples(some.floats(-1e6, 1e6), some.floats(-1e6, 1e6)), min_size=2, max_size=60))
def test_the_p_value_is_scipys_where_scipy_has_one(pairs):
    before, after = np.array(pairs).T
    change = after - before
    size = np.abs([before, after]).max()
    # SciPy's own sums lose a spread that is smaller than this.
    assume(np.std(change) > 1e-9 * size and size > 1e-100)

    expected = stats.ttest_rel(after, before, alternative="less").pvalue
    assert p_value_of_drop(before, after) == pytest.approx(expected, rel=1e-4, abs=1e-12)


finite = some.floats(allow_nan=False, allow_infinity=False)


@given(some.lists(some.tuples(finite, finite), max_size=60))
@example([(1.0, 1.0), (0.0, 1e-300), (0.0, 0.0)])
@example([(1.7e308, -1.7e308), (-1.7e308, 1.7e308), (0.0, 0.0)])
@example([(5e-324, 0.0), (0.0, 0.0)])
def test_numbers_of_any_size_have_a_p_value(pairs):
    before, after = np.array(pairs).reshape(-1, 2).T

    with np.errstate(all="raise", under="ignore"):
        assert 0.0 <= p_value_of_drop(before, after) <= 1.0


@pytest.mark.parametrize("unit", [5e-324 * 2**10, 1e-300, 1.0, 1e300])
def test_the_unit_of_what_is_measured_does_not_matter_to_the_p_value(unit):
    before, after = np.array([3.0, 5.0, 8.0, 8.0]) * unit, np.array([2.0, 5.0, 4.0, 7.0]) * unit

    assert p_value_of_drop(before, after) == pytest.approx(0.09084505690810468, rel=1e-9)


@pytest.mark.parametrize("kind", ["success", "return"])
def test_policies_that_have_not_changed_are_seldom_said_to_have_fallen(kind):
    draw = np.random.default_rng(0)
    said = 0
    for _ in range(2_000):
        if kind == "success":
            chances = draw.uniform(0.5, 1.0, 48)
            before, after = (draw.random(48) < chances for _ in range(2))
        else:
            # Returns of a lander: most land, some crash.
            before, after = (draw.normal(220, 30, 48) - 300 * (draw.random(48) < 0.15) for _ in range(2))
        said += p_value_of_drop(before.astype(float), after.astype(float)) <= 0.025

    assert said / 2_000 < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 2_000)


@pytest.mark.parametrize(
    "moment", mostly_slow(["critic fit", "before the look", "after the rollback", "recovering"], 2)
)
def test_a_guarded_stage_that_goes_on_ends_with_the_same_bits(moment, tmp_path, engine):
    tune = harmed("noise", guard_rollbacks=5, max_steps=2_400)
    reached = {
        "critic fit": lambda: tune.runner.stage_steps > 0,
        "before the look": lambda: tune.runner.phase == "hand-over",
        "after the rollback": lambda: tune.recorder.payloads(HandoverChecked),
        "recovering": lambda: len(tune.recorder.payloads(HandoverChecked)) > 1,
    }
    while not reached[moment]():
        tune.runner.step()
    write_checkpoint(tmp_path, "1", {"learner": tune.learner.state_dict(), "runner": tune.runner.state_dict()})
    state = read_checkpoint(tmp_path / "1")
    other = learner_for(tune.runner.stage.environment, agent(), seed=7)
    other.load_state_dict(state["learner"])
    again = Tune(tune.runner.stage, other, index=1)
    again.runner.load_state_dict(state["runner"])
    other.load_state_dict(state["learner"])

    ends = []
    for each in (tune, again):
        set_random_state(state["learner"]["random"])
        ends.append(each.finish())

    assert ends[0] == ends[1]
    np.testing.assert_equal(again.learner.state_dict(), tune.learner.state_dict())
    for kind in (HandoverChecked, HandoverRecovered, Evaluated):
        told, repeated = tune.recorder.payloads(kind), again.recorder.payloads(kind)
        assert told[len(told) - len(repeated) :] == repeated


def test_what_a_guard_has_seen_and_compared_so_far_is_saved():
    stage = tuning(until=NEVER, guard_steps=100)
    told = []
    for saves in (False, True):
        guard, recorder = guard_of(stage)
        guard.begin(played([8.0, 7.0] * 24), 0)
        guard.wants_a_look(64)
        guard.note(played([1.0] * 16))
        if saves:
            state = guard.state_dict()
            guard, recorder = guard_of(stage)
            guard.load_state_dict(state)
        assert guard.wants_a_look(128)
        assert guard.judge(played([1.0, 2.0, 3.0, 4.0]), 160) is None
        if saves:
            state = guard.state_dict()
            guard, recorder = guard_of(stage)
            guard.load_state_dict(state)
        assert guard.waves == 1
        assert guard.judge(played([20.0, 19.0, 18.0, 17.0]), 192) is False
        told.append(recorder.payloads(HandoverChecked))

    assert told[0] == told[1] and told[0][0].after.episodes == 8


def test_settings_out_of_range_are_refused():
    for name in ("guard_steps", "guard_rollbacks"):
        with refused("setting-range", where="stage 'tune'"):
            tuning(**{name: -1})
