"""Exploration: measured in each state, given back in each state, and only where evidence asks for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from building import QUICK, UNREACHED, echo, learner_for, tuning
from stepping import Tune, cloned, context_for, same

from rlstages import Environment, RewardThreshold, SuccessThreshold
from rlstages.events import ExplorationMeasured, HandoverChecked, Warned
from rlstages.learners.exploration import entropies, explore_more, is_certain, measure_exploration
from rlstages.specs.criteria.episodes import Episode
from rlstages.stages.fine_tuning import exploration_guard
from rlstages.stages.fine_tuning.exploration_guard import ExplorationGuard
from rlstages.stages.fine_tuning.runner import FineTuningRunner
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint

HARD = SuccessThreshold(0.8, window=8)


@pytest.fixture(params=["torch", "numpy"])
def engine(request, monkeypatch):
    """Play with both engines."""
    monkeypatch.setitem(QUICK, "engine", request.param)


def certain(environment, **settings):
    """A learner that takes the same action in nearly all states, as if it had been cloned."""
    learner = learner_for(environment, **settings)
    with torch.no_grad():
        learner.policy.action_net.weight.mul_(1e-3)
        learner.policy.action_net.bias[0] += 5.0
        if hasattr(learner.policy, "log_std"):
            learner.policy.log_std.fill_(-2.0)
    return cloned(learner)


def states(learner, number=300):
    space = learner.policy.observation_space
    return np.stack([space.sample() for _ in range(number)])


@pytest.mark.parametrize("acts", ["discrete", "multidiscrete", "multibinary"])
def test_every_state_gets_its_share_of_other_actions(acts):
    learner = certain(echo(acts=acts))
    seen = states(learner)
    before, critic = measure_exploration(learner.policy, seen), learner.policy.value_net.weight.clone()
    explore_more(learner.policy, seen, 0.6, seed=0)
    after = entropies(learner.policy, seen)

    assert before["entropy_low"] < 0.6 and is_certain(before) == (acts == "discrete")
    assert after.min() > 0.55
    assert torch.equal(critic, learner.policy.value_net.weight)
    assert after.shape == (len(seen),)


def test_a_continuous_policy_gets_at_least_that_noise():
    learner = certain(echo(acts="box"))
    assert entropies(learner.policy, states(learner)) is None
    assert measure_exploration(learner.policy, states(learner))["std"] == pytest.approx(np.exp(-2.0))
    explore_more(learner.policy, states(learner), 0.6, seed=0)
    assert torch.allclose(learner.policy.log_std.exp(), torch.tensor(0.6))


def test_a_certain_policy_that_never_succeeds_is_made_to_try_more_and_told_of(engine):
    tune = Tune(tuning(environment=Environment("toys:Never"), until=HARD), certain(Environment("toys:Never")))
    tune.steps(3)
    measured, *more = tune.recorder.payloads(ExplorationMeasured)

    assert measured.reason and measured.entropy_low < 0.2 and not more
    assert tune.runner.parts.updates._reference is not None and tune.rollouts()[0].phase == "exploring"
    assert tune.runner.state_dict()["explorer"]["raised"]
    tune.runner.close()


@pytest.mark.parametrize(("wanted", "anchored"), [(None, False), (0.1, True)])
def test_a_continuous_policy_gets_noise_back_and_is_not_held_where_it_was(wanted, anchored, engine):
    spread = echo(acts="box", steps=2)
    stage = tuning(environment=spread, until=HARD, anchor_kl=wanted, critic_fit_steps=0)
    learner = certain(spread)
    with torch.no_grad():
        learner.policy.action_net.bias[0] = 9.0
    tune = Tune(stage, learner).steps(3)
    measured, *_ = tune.recorder.payloads(ExplorationMeasured)

    assert measured.reason and measured.std == pytest.approx(np.exp(-2.0))
    assert float(learner.policy.log_std.detach().exp().mean()) > 0.8
    assert ("anchor_kl" in tune.rollouts()[-1].train) == anchored
    tune.runner.close()


def test_it_can_be_switched_off_and_then_only_tells(engine):
    stage = tuning(environment=Environment("toys:Never"), until=HARD, explore_again=False, critic_fit_steps=0)
    learner = certain(Environment("toys:Never"))
    tune = Tune(stage, learner).steps(3)
    (warned,) = tune.recorder.payloads(Warned)
    assert warned.message.startswith("success 0.00 at the start, and nothing is explored: the policy is certain")
    assert all(not measured.reason for measured in tune.recorder.payloads(ExplorationMeasured))
    tune.runner.close()


def patient(environment, **settings):
    """A stage whose gate does not open at once."""
    until = SuccessThreshold(0.99, margin=1e-3, window=8)
    return tuning(environment=environment, until=until, critic_fit_steps=0, **settings)


@pytest.mark.parametrize("where", ["toys:Always", "toys:Echo"])
def test_nothing_is_changed_where_a_policy_succeeds_or_was_never_trained(where, engine):
    environment = Environment(where)
    learner = certain(environment) if where == "toys:Always" else learner_for(environment)
    tune = Tune(patient(environment), learner).steps(4)
    assert [measured.reason for measured in tune.recorder.payloads(ExplorationMeasured)] == [""]
    tune.runner.close()


@pytest.mark.parametrize(
    ("until", "before", "now", "found"),
    [
        (HARD, [1] * 3 + [0] * 7, [1] + [0] * 9, True),
        (HARD, [1] * 3 + [0] * 7, [1] * 3 + [0] * 7, False),
        (HARD, [0] * 60, [1] + [0] * 9, False),
        (RewardThreshold(-110.0, window=8), [-200.0] * 10, [-200.0] * 8, True),
        (RewardThreshold(-110.0, window=8), [-200.0] * 10, [-200.0] * 7 + [-199.0], False),
        (RewardThreshold(100.0, window=8), [60.0] * 10, [60.0] * 8, False),
    ],
)
def test_later_only_a_policy_that_has_nothing_to_learn_from_is_made_to_try_more(until, before, now, found):
    def episodes(values):
        return [Episode(0, i, float(v), 5, v == 1, 5 * i) for i, v in enumerate(values)]

    stage = tuning(environment=Environment("toys:Never"), until=until, critic_fit_steps=0)
    guard = ExplorationGuard(stage, certain(Environment("toys:Never")), lambda happened: None, seed=0)
    guard.begin(episodes(before))

    assert bool(guard._found(episodes(now), first=False)) == found


def test_exploration_has_a_meaning_for_discrete_actions():
    tune = Tune(patient(Environment("toys:Always"), exploration=0.5), certain(Environment("toys:Always"))).steps(3)
    (measured,) = tune.recorder.payloads(ExplorationMeasured)
    assert measured.reason and not tune.runner.state_dict()["explorer"]["raised"]
    tune.runner.close()


def test_exploration_that_was_asked_for_is_not_taken_for_a_fall(engine):
    environment = Environment("toys:Always")
    stage = tuning(environment=environment, until=UNREACHED, exploration=0.6, guard_steps=64, critic_fit_steps=64)
    tune = Tune(stage, cloned(certain(environment))).steps(12)

    assert tune.rollouts()[0].phase == "exploring"
    assert not tune.recorder.payloads(HandoverChecked) and tune.runner.parts.guard.rollbacks == 0
    tune.runner.close()


def test_little_before_its_end_a_stage_is_left_as_it_is(engine):
    stage = tuning(environment=Environment("toys:Never"), until=HARD, critic_fit_steps=0, max_steps=80)
    tune = Tune(stage, certain(Environment("toys:Never")))
    tune.finish()

    assert {rollout.phase for rollout in tune.rollouts()} == {"training"}


def test_the_later_look_waits_for_a_whole_window(monkeypatch):
    monkeypatch.setattr(exploration_guard, "PATIENCE_STEPS", 256)
    monkeypatch.setattr(exploration_guard, "PATIENCE_ROLLOUTS", 3)
    stage = tuning(environment=Environment("toys:First", long=100), until=RewardThreshold(1.0, window=8))
    tune = Tune(replace(stage, critic_fit_steps=0), certain(stage.environment), n_steps=16)
    phases = []
    while "exploring" not in phases and len(phases) < 60:
        phases = [rollout.phase for rollout in tune.steps(1).rollouts()]

    assert phases.count("exploring") == 1 and len(phases) > 10
    tune.runner.close()


def test_a_stage_that_was_made_to_explore_is_not_said_to_have_lost_the_one_before(tmp_path):
    environment = Environment("toys:Never")
    before = tuning("before", Environment("toys:Always"))
    stage = tuning(environment=environment, until=HARD, on_collapse="return", critic_fit_steps=0)

    def runner(learner):
        return FineTuningRunner(context_for(stage, learner, before=[before], index=1))

    one, other = runner(certain(environment)), runner(certain(environment))
    while not one.parts.explorer.raised:
        one.step()
    other.load_state_dict(one.state_dict())

    assert one.parts.look_back is None and other.parts.look_back is None
    one.close()
    other.close()


def test_a_run_goes_on_exactly_after_exploration_was_given_back(engine, tmp_path):
    stage = tuning(environment=Environment("toys:Never"), until=HARD, max_steps=900)
    tune = Tune(stage, certain(Environment("toys:Never"))).steps(3)
    path = write_checkpoint(tmp_path, "x", {"learner": tune.learner.state_dict(), "runner": tune.runner.state_dict()})
    tune.finish()

    state = read_checkpoint(path)
    other = learner_for(stage.environment, seed=3)
    other.load_state_dict(state["learner"])
    again = Tune(stage, other)
    again.runner.load_state_dict(state["runner"])
    again.learner.load_state_dict(state["learner"])
    again.finish()
    assert same(tune.learner.weights(), again.learner.weights())
