"""Fine-tuning: what is handed over from the clone, which episodes count, and when the gate opens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from building import HALF, QUICK, agent, echo, learner_for, mostly_slow, tuning
from stepping import Tune, cloned, same

from rlstages import Environment, Linear, RewardThreshold, SuccessThreshold
from rlstages.events import Evaluated, Judged, Warned
from rlstages.learners.algorithms.on_policy.protocol import critic_parameters
from rlstages.learners.normalizer import normalizer_of
from rlstages.reproducibility import set_random_state
from rlstages.specs.criteria.episodes import Episode
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint

A2C = {"algorithm": "A2C", "batch_size": None, "n_epochs": None}
SURE = SuccessThreshold(0.5, window=4, max_episodes=120)


@pytest.fixture(autouse=True, params=["torch", "numpy"])
def engine(request, monkeypatch):
    """Play everything with both engines."""
    monkeypatch.setitem(QUICK, "engine", request.param)


def test_the_first_rollout_is_played_with_exactly_the_cloned_weights():
    learner = cloned(learner_for(echo()))
    clone = learner.weights()
    tune = Tune(tuning(), learner)
    played = []
    begin = learner.algorithm.engine.begin_rollout
    learner.algorithm.engine.begin_rollout = lambda buffer: (played.append(learner.weights()), begin(buffer))[1]

    tune.steps(4)

    assert same(clone, played[0])
    assert [event.phase for event in tune.rollouts()] == ["critic fit", "critic fit", "training"]
    own = {id(parameter) for parameter in critic_parameters(learner.policy)}
    critic = {name for name, parameter in learner.policy.named_parameters() if id(parameter) in own}
    for weights in played[:3]:
        assert all(torch.equal(value, weights[name]) for name, value in clone.items() if name not in critic)
    assert not same({name: clone[name] for name in critic}, played[2])
    assert not torch.equal(learner.weights()["action_net.weight"], clone["action_net.weight"])


def test_the_critic_is_fitted_after_cloning_only():
    fresh, after = Tune(tuning()), Tune(tuning(critic_fit_steps=0), cloned(learner_for(echo())))

    for tune in (fresh, after):
        tune.steps(2)
        assert tune.rollouts()[0].phase == "training"


def test_the_optimiser_is_rebuilt_after_cloning_and_kept_between_rl_stages():
    learner = cloned(learner_for(echo()))
    before = learner.policy.optimizer
    Tune(tuning(), learner).steps(4).runner.close()
    first = learner.policy.optimizer
    moments = len(first.state)

    Tune(tuning("next"), learner, index=1).steps(1)

    assert first is not before
    assert moments > 0
    assert learner.policy.optimizer is first and len(first.state) == moments


def test_the_spread_of_actions_is_kept_unless_the_stage_sets_it():
    for exploration, expected in ((None, -0.7), (-1.5, -1.5)):
        environment = echo(acts="box")
        learner = cloned(learner_for(environment))
        with torch.no_grad():
            learner.policy.log_std.fill_(-0.7)

        Tune(tuning(environment=environment, exploration=exploration), learner).steps(1)

        assert learner.policy.log_std.tolist() == pytest.approx([expected] * 2)


def test_observation_statistics_are_carried_and_move_between_update_and_rollout_only():
    learner = cloned(learner_for(echo(), agent(normalize_observations=True)))
    normalizer = normalizer_of(learner.policy)
    normalizer.absorb(np.random.default_rng(0).normal(0.3, 0.5, (100, 3)))
    statistics = normalizer.standardizers["obs_"]
    tune = Tune(tuning(), learner)
    during = []
    begin, end = learner.algorithm.engine.begin_rollout, learner.algorithm.engine.end_rollout
    learner.algorithm.engine.begin_rollout = lambda buffer: (during.append(statistics.count.item()), begin(buffer))[1]
    learner.algorithm.engine.end_rollout = lambda *seen: (during.append(statistics.count.item()), end(*seen))[1]
    tune.steps(4)

    assert during == [100, 100, 164, 164, 228, 228]
    assert statistics.count.item() == 292


def test_statistics_after_a_rollout_are_those_of_what_was_seen():
    learner = learner_for(echo(), agent(normalize_observations=True))
    Tune(tuning(), learner).steps(2)

    seen = learner.algorithm.model.rollout_buffer.observations.reshape(-1, 3)
    statistics = normalizer_of(learner.policy).standardizers["obs_"]
    assert statistics.mean.numpy() == pytest.approx(seen.mean(axis=0), abs=1e-5)


def test_statistics_of_returns_start_afresh_in_each_stage():
    learner = learner_for(echo(), agent(normalize_rewards=True))
    first = Tune(tuning(), learner).steps(4)
    count = first.runner.parts.envs.env.ret_rms.count
    first.runner.close()

    second = Tune(tuning("next"), learner, index=1).steps(2)

    assert count > 150
    assert second.runner.parts.envs.env.ret_rms.count == pytest.approx(64, abs=0.1)


def test_rewards_are_scaled_for_learning_and_reported_as_they_are():
    tune = Tune(tuning(environment=echo(wrappers=["toys:DoubleReward"])), normalize_rewards=True).steps(8)

    assert tune.rollouts()[-1].mean_return > 2.0
    assert 2.0 not in tune.learner.algorithm.model.rollout_buffer.rewards


def test_each_copys_first_episode_is_never_counted():
    # The window is wide, so that the first episodes would still be in it.
    until = SuccessThreshold(0.5, window=50, max_episodes=120)
    stage = tuning(environment=Environment("toys:First"), until=until, critic_fit_steps=0, evaluation_episodes=0)

    tune = Tune(stage)
    result = tune.finish()

    assert result.outcome == "missed"
    counted = [event for event in tune.rollouts() if event.episodes]
    assert len(counted) > 5
    assert all(event.success == 0.0 and event.mean_length == 6.0 for event in counted)


def test_episodes_of_an_earlier_stage_are_never_counted():
    learner = learner_for(Environment("toys:Always"))
    first = Tune(tuning("easy", Environment("toys:Always"), critic_fit_steps=0), learner)
    assert first.finish().outcome == "reached"

    second = Tune(tuning("hard", Environment("toys:Never"), critic_fit_steps=0), learner, index=1)
    result = second.finish()

    assert result.outcome == "missed"
    assert {event.success for event in second.rollouts()} <= {None, 0.0}
    assert result.before.success == 0.0


def test_the_gate_opens_on_fresh_episodes_of_the_frozen_policy_and_that_policy_is_trusted():
    tune = Tune(tuning("easy", Environment("toys:Always"), until=SURE, critic_fit_steps=0))
    while tune.runner.result is None:
        frozen = tune.learner.weights()
        tune.runner.step()
    tune.runner.close()

    result, judged = tune.runner.result, tune.recorder.payloads(Judged)
    assert result.outcome == "reached"
    assert result.verdict == judged[-1].verdict and judged[-1].verdict.met
    assert judged[-1].verdict.episodes >= SURE.fewest_episodes(0.02)
    assert result.after.episodes >= SURE.frozen_episodes
    assert same(frozen, tune.learner.weights()) and same(frozen, tune.learner.trusted)


def test_confirmations_take_no_steps_of_their_own():
    tune = Tune(tuning("easy", Environment("toys:Always"), until=SURE, critic_fit_steps=0))

    tune.finish()

    assert tune.runner.stage_steps == tune.learner.global_step == 64 * len(tune.rollouts())
    assert tune.rollouts()[-1].phase == "confirming"
    steps = [event.global_step for event in tune.recorder.events]
    assert steps == sorted(steps)


def test_after_a_failed_confirmation_training_goes_on_and_another_may_begin():
    # A window of one episode looks promising whenever that one was solved; more episodes tell.
    stage = tuning(environment=echo(steps=2), until=SuccessThreshold(0.9, window=1))
    tune = Tune(stage)
    while not any(judged.verdict.futile for judged in tune.recorder.payloads(Judged)):
        tune.runner.step()
        assert tune.runner.result is None

    assert tune.runner.phase == "training"
    failed = tune.recorder.payloads(Judged)[-1].attempt
    tune.steps(12)
    assert max(judged.attempt for judged in tune.recorder.payloads(Judged)) > failed
    tune.runner.close()


@pytest.mark.parametrize("mode", ["stochastic", "deterministic"])
def test_the_action_mode_holds_in_gates_and_evaluations(mode, monkeypatch):
    used = set()
    tune = Tune(tuning("easy", Environment("toys:Always"), until=SURE, critic_fit_steps=0), action_mode=mode)
    player = type(tune.learner.algorithm.engine).player

    def watch(self, seed, deterministic):
        used.add(deterministic)
        return player(self, seed, deterministic)

    monkeypatch.setattr(type(tune.learner.algorithm.engine), "player", watch)
    result = tune.finish()

    assert result.outcome == "reached"
    assert used == {mode == "deterministic"}


def test_a_deterministic_policy_is_screened_on_episodes_of_its_own():
    stage = tuning("easy", Environment("toys:Always"), until=SURE, critic_fit_steps=0)
    tune = Tune(stage, action_mode="deterministic").steps(10)
    assert all(event.episodes == 0 for event in tune.rollouts())

    before = tune.runner.stage_steps
    tune.steps(1)

    assert tune.runner.phase == "confirming"
    assert tune.runner.stage_steps == before + 64 + 2 * SURE.window


def test_a_missed_threshold_says_what_was_missing():
    tune = Tune(tuning("hard", Environment("toys:Never"), max_steps=900, critic_fit_steps=0))

    result = tune.finish()

    assert result.outcome == "missed"
    short = "900 steps were spent and success of at least 0.5 was not reached: the last 8 episodes have 0.00."
    assert result.reason == short
    waiting = [told.waiting_for for told in tune.rollouts()]
    assert waiting[-1] == "the last 8 episodes' 0.00 is below 0.50"
    assert 900 <= tune.runner.stage_steps < 900 + 64
    assert tune.learner.trusted is None


def test_a_missed_threshold_tells_of_the_confirmation_that_was_given_up():
    tune = Tune(tuning("hard", Environment("toys:Never"), max_steps=900, critic_fit_steps=0))
    tune.runner.verdict = SURE.judge([Episode(0, number, 0.0, 5, False) for number in range(60)])
    tune.runner.stage_steps = 900 + 64
    tune.runner.phase = "training"

    tune.runner.go_on()
    tune.runner.close()

    assert "900 steps were spent (and 64 more to the end of a confirmation)" in tune.runner.result.reason
    assert "the last confirmation was given up, with success 0.00 over" in tune.runner.result.reason


def test_a_return_can_be_the_threshold():
    until = RewardThreshold(1.0, window=5, min_episodes=12, max_episodes=60)
    result = Tune(tuning("easy", Environment("toys:Always"), until=until, critic_fit_steps=0)).finish()

    assert result.outcome == "reached"
    assert result.verdict.value == 2.0


def test_fine_tuning_learns():
    tune = Tune(tuning(max_steps=60_000, until=SuccessThreshold(0.8)), learning_rate=1e-2, n_epochs=8)

    result = tune.finish()

    assert result.outcome == "reached"
    assert result.before.success < 0.4 < 0.75 < result.after.success


def test_a2c_learns():
    stage = tuning(max_steps=60_000, until=SuccessThreshold(0.8))

    assert Tune(stage, **A2C, n_steps=8, learning_rate=1e-2).finish().outcome == "reached"


def test_the_anchor_is_the_trusted_policy_and_its_weight_falls_to_nothing():
    learner = cloned(learner_for(echo()))
    tune = Tune(tuning(critic_fit_steps=128, anchor_kl=0.5, anchor_steps=128, max_steps=2_000), learner).steps(7)

    noted = [(event.phase, "anchor_kl" in event.train) for event in tune.rollouts()]

    assert noted == [("critic fit", False)] * 2 + [("training", True)] * 2 + [("training", False)] * 2


def test_demonstrations_fade_over_the_steps_after_the_critic_fit():
    learner = cloned(learner_for(echo()))
    stage = tuning(critic_fit_steps=128, demonstration_loss=0.5, demonstration_steps=128, max_steps=2_000)
    tune, weights = Tune(stage, learner, shown=(np.eye(3, dtype=np.float32), np.arange(3))), []
    update = learner.algorithm.engine.update
    learner.algorithm.engine.update = lambda buffer, settings, terms: (
        weights.append(terms[0].weight if terms else None),
        update(buffer, settings, terms),
    )[1]

    tune.steps(7)

    noted = [(event.phase, "demonstration_loss" in event.train) for event in tune.rollouts()]
    assert noted == [("critic fit", False)] * 2 + [("training", True)] * 2 + [("training", False)] * 2
    assert weights == [0.5, 0.25, None, None]


def test_a_stage_whose_demonstrations_weigh_nothing_is_one_without_any():
    def train(shown, **settings):
        tune = Tune(tuning(**settings), shown=shown).steps(6)
        tune.runner.close()
        return tune.learner.weights()

    shown = np.eye(3, dtype=np.float32), np.arange(3)
    without = train(None)

    assert same(train(shown, demonstration_loss=0.5, demonstration_steps=0), without)
    assert not same(train(shown, demonstration_loss=0.5), without)


def test_a2c_has_no_anchor_unless_asked():
    for weight, expected in ((None, False), (0.1, True)):
        learner = cloned(learner_for(echo(), agent(**A2C)))
        tune = Tune(tuning(anchor_kl=weight, critic_fit_steps=0), learner).steps(2)
        assert ("anchor_kl" in tune.rollouts()[0].train) == expected


def test_schedules_run_over_the_stage():
    tune = Tune(tuning(environment=Environment("toys:Never"), max_steps=1_280, learning_rate=Linear(1e-2, 0.0)))

    tune.finish()

    rates = [event.train["learning_rate"] for event in tune.rollouts()]
    assert rates == pytest.approx([1e-2 * (1 - n / 20) for n in range(20)])


def test_a_stage_may_override_the_agents_settings():
    tune = Tune(tuning(learning_rate=5e-5), learning_rate=1e-2).steps(2)

    assert tune.rollouts()[0].train["learning_rate"] == 5e-5


@pytest.mark.parametrize("phase", ["before", "critic fit", "training"])
def test_a_runner_goes_on_in_the_phase_that_was_saved(phase, tmp_path):
    until = SuccessThreshold(0.99, margin=0.01, window=4)
    stage = tuning("easy", Environment("toys:Always"), until=until, critic_fit_steps=256, max_steps=20_000)
    settings = {"normalize_observations": True, "normalize_rewards": True}
    learner = cloned(learner_for(stage.environment, agent(**settings)))
    tune = Tune(stage, learner)
    while tune.runner.phase != phase:
        tune.runner.step()
        assert tune.runner.result is None
    if phase == "critic fit":
        tune.steps(1)
    write_checkpoint(tmp_path, "1", {"learner": learner.state_dict(), "runner": tune.runner.state_dict()})
    tune.runner.close()
    state = read_checkpoint(tmp_path / "1")

    other = learner_for(stage.environment, agent(**settings), seed=7)
    other.load_state_dict(state["learner"])
    again = Tune(stage, other)
    again.runner.load_state_dict(state["runner"])
    other.load_state_dict(state["learner"])

    assert again.runner.phase == phase
    assert again.runner.stage_steps == tune.runner.stage_steps == other.global_step
    assert again.runner.parts.recent.episodes == tune.runner.parts.recent.episodes
    np.testing.assert_equal(again.runner.parts.gate.state_dict(), tune.runner.parts.gate.state_dict())
    if phase != "before":
        assert again.runner.parts.envs.open().ret_rms.count == tune.runner.parts.envs.env.ret_rms.count
    result = again.finish()
    assert result.outcome == "reached"
    fits = [event.phase for event in tune.rollouts() + again.rollouts()].count("critic fit")
    assert 1 <= fits <= 4
    assert again.recorder.payloads(Judged)[-1].attempt == 1
    assert len(tune.recorder.payloads(Evaluated) + again.recorder.payloads(Evaluated)) == 1


@pytest.mark.parametrize("algorithm", mostly_slow(["PPO", "A2C"], 1))
@pytest.mark.parametrize("phase", ["critic fit", "training", "confirming"])
def test_a_stage_that_goes_on_ends_with_the_same_bits(phase, algorithm):
    settings = {"algorithm": algorithm, "normalize_rewards": True, "normalize_observations": True}
    if algorithm == "A2C":
        settings |= {"batch_size": None, "n_epochs": None}
    stage = tuning(environment=echo(steps=7), max_steps=2_400, on_timeout="advance")

    def begin(steps):
        tune = Tune(stage, learner_for(stage.environment, agent(**settings)))
        tune.learner.objective = "cloning"
        return tune.steps(steps)

    tune = begin(1)
    while tune.runner.phase != phase or tune.runner.stage_steps == 0:
        tune.runner.step()
    state = {"learner": tune.learner.state_dict(), "runner": tune.runner.state_dict()}
    other = learner_for(stage.environment, agent(**settings), seed=7)
    again = Tune(stage, other)
    again.runner.load_state_dict(state["runner"])
    other.load_state_dict(state["learner"])
    # What is saved before the copies are needed again is what was loaded.
    np.testing.assert_equal(again.runner.state_dict()["copies"], state["runner"]["copies"])

    ends = []
    for each in (tune, again):
        set_random_state(state["learner"]["random"])
        ends.append(each.finish())

    assert ends[0] == ends[1]
    np.testing.assert_equal(again.learner.state_dict(), tune.learner.state_dict())
    told = [[replace(p, steps_per_second=0.0) for p in t.rollouts()] for t in (tune, again)]
    assert told[0][len(told[0]) - len(told[1]) :] == told[1]


def test_a_stage_says_so_when_its_copies_do_not_come_back():
    stage = tuning(environment=Environment("toys:Drifting"))
    tune = Tune(stage).steps(4)
    again = Tune(stage, tune.learner)
    again.runner.load_state_dict(tune.runner.state_dict())

    again.steps(1)

    [warned] = again.recorder.payloads(Warned)
    assert "did not bring copies 0, 1, 2, 3 back" in warned.message


def test_seeds_decide_a_stage():
    def train(seed):
        tune = Tune(tuning(until=HALF), seed=seed).steps(6)
        tune.runner.close()
        return tune.learner.weights()

    assert same(train(1), train(1))
    assert not same(train(1), train(2))


def test_clipping_moves_in_a_straight_line_over_the_stage():
    stage = tuning(
        environment=Environment("toys:Never"),
        max_steps=1_280,
        clip_range=Linear(0.3, 0.1),
        clip_range_vf=Linear(2.0, 1.0),
        critic_fit_steps=0,
    )
    tune, used = Tune(stage), []
    update = tune.learner.algorithm.engine.update

    def watch(buffer, settings, *pull):
        used.append(settings)
        return update(buffer, settings, *pull)

    tune.learner.algorithm.engine.update = watch
    tune.finish()

    assert [s["clip_range"] for s in used] == pytest.approx(np.linspace(0.3, 0.1, 21)[:-1])
    assert [s["clip_range_vf"] for s in used] == pytest.approx(np.linspace(2.0, 1.0, 21)[:-1])
