"""The gate: what counts, in which order, how surely it stays shut, and that held rollouts are learned from."""

from dataclasses import replace

import numpy as np
import pytest
from building import QUICK, agent, echo, learner_for, tuning
from refusing import refused
from stepping import Tune, same

from rlstages import Environment, RewardThreshold, SuccessThreshold
from rlstages.errors import Fault
from rlstages.events import Judged
from rlstages.learners.algorithms.on_policy.rollout import collect
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.criteria.sequential import ALPHA
from rlstages.stages.fine_tuning import phases
from rlstages.stages.fine_tuning.gate import Gate, share
from rlstages.stages.fine_tuning.updates import _size_of
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint

SURE = SuccessThreshold(0.5, window=4, max_episodes=120)
LATER = np.array([10**9])
"""All copies are in episodes that began after everything judged."""


def solved(values, began=0, copy=0):
    return [Episode(copy, i, float(v), 5, bool(v), began + 5 * i) for i, v in enumerate(values)]


def test_the_shares_of_all_confirmations_add_up_to_the_error_budget():
    assert [share(n) for n in (1, 2)] == pytest.approx([0.4 * ALPHA, 0.3 * ALPHA])
    assert sum(share(n) for n in range(1, 20_000)) == pytest.approx(ALPHA, rel=1e-3)


def test_episodes_count_in_the_order_of_their_beginning_and_wait_for_those_before():
    gate = Gate(SURE)
    gate.begin(10)
    early, late = Episode(0, 0, 1.0, 5, True, 8), Episode(0, 1, 1.0, 30, True, 13)
    short = Episode(1, 4, 0.0, 2, False, 40)
    gate.note([short, late, early])

    # A copy is still in an episode that began before the short one.
    (_, verdict, _), *_ = gate.judge(np.array([43, 20]), last=False)
    assert verdict.episodes == 1 and verdict.value == 1.0
    # An episode that began before the confirmation keeps nobody waiting.
    (_, verdict, _), *_ = gate.judge(np.array([43, 9]), last=False)
    assert verdict.episodes == 2 and verdict.value == 0.5


def test_the_frozen_policy_has_to_bear_the_test_out():
    gate = Gate(SURE)
    gate.begin(0)
    gate.note(solved([1] * 40))
    gate.changed(150)
    ((_, verdict, answer),) = gate.judge(LATER, last=False)
    assert (answer, verdict.met, verdict.episodes_needed) == ("wait", False, 6)

    gate.note(solved([0] * 16, began=200))
    ((_, verdict, answer),) = gate.judge(LATER, last=False)
    assert answer == "go on" and not verdict.met

    gate.changed(300)
    gate.note(solved([1] * 16, began=300))
    ((_, verdict, answer),) = gate.judge(LATER, last=False)
    assert answer == "open" and verdict.met and len(gate.frozen(1, LATER)) == 16


def test_the_frozen_episodes_are_those_of_the_confirmation_that_opens():
    gate = Gate(SURE)
    gate.begin(0)
    gate.begin(100)
    gate.changed(100)
    # One copy is still in an episode of before; the older confirmation waits for it.
    begins = np.array([10**9, 50])
    gate.note(solved([1] * 40, began=100))

    (_, old, _), (number, young, answer) = gate.judge(begins, last=False)

    assert (old.episodes, young.episodes, number, answer) == (0, 40, 2, "open")
    assert len(gate.frozen(number, begins)) == 40


def test_a_gate_rarely_opens_on_a_policy_at_its_null():
    rng, opened, runs = np.random.default_rng(0), 0, 200
    criterion = SuccessThreshold(0.9)
    for _ in range(runs):
        gate, recent, step = Gate(criterion), [], 0
        gate.begin(0)
        for _ in range(60):
            played = solved(rng.random(16) < 0.85, began=step)
            step += 5 * 16
            gate.note(played)
            recent = (recent + played)[-30:]
            if any(answer == "open" for *_, answer in gate.judge(LATER, last=False)):
                opened += 1
                break
            gate.changed(step)
            gate.propose(recent, LATER, step)
    assert opened <= 0.08 * runs


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize("sees", ["vector", "discrete", "dict"])
def test_a_rollout_can_be_taken_and_put_back(engine, sees):
    if (engine, sees) == ("numpy", "dict"):
        pytest.skip("the numpy engine takes no dictionaries")
    policy = "MultiInputPolicy" if sees == "dict" else "MlpPolicy"
    tune = Tune(tuning(environment=echo(sees=sees), critic_fit_steps=0), engine=engine, policy=policy).steps(2)
    learner = tune.learner
    buffer = collect(learner.algorithm.model, tune.runner.parts.envs.open(), learner.algorithm.engine, 0.95)
    kept, again = buffer.taken(), buffer.taken()
    learner.algorithm.engine.update(buffer, {**learner.agent.settings(), "learning_rate": 1e-3})
    buffer.refill([kept, kept])

    joined = buffer.taken()
    for name, array in joined.items():
        parts = array if isinstance(array, dict) else {"": array}
        wanted = again[name] if isinstance(array, dict) else {"": again[name]}
        assert all(np.array_equal(part, np.concatenate([wanted[key]] * 2)) for key, part in parts.items())
    assert _size_of(joined) == 2 * _size_of(kept)
    assert np.isfinite(learner.algorithm.engine.update(buffer, learner.agent.settings())["value_loss"])
    collect(learner.algorithm.model, tune.runner.parts.envs.open(), learner.algorithm.engine, 0.95)
    assert buffer.rewards.shape == again["rewards"].shape
    tune.runner.close()


def test_a_policy_goes_on_learning_until_its_own_episodes_say_that_the_gate_is_near():
    """A low threshold needs fewer episodes than the frozen policy has to play; none of them has been seen yet."""
    stage = tuning(
        environment=Environment("toys:First", long=100),
        until=SuccessThreshold(0.5),
        critic_fit_steps=0,
        max_steps=4_000,
    )
    tune = Tune(stage, n_steps=16)
    tune.finish()

    assert {rollout.phase for rollout in tune.rollouts()} == {"training"}


@pytest.mark.parametrize(("met", "outcome"), [(True, "reached"), (False, "missed")])
def test_what_was_held_is_learned_from_at_once_and_only_while_there_are_steps(met, outcome, monkeypatch):
    stage = replace(Long.stage, max_steps=3_000)
    tune = Tune(stage, learning_rate=1e-2, n_epochs=8)
    frozen = Gate._frozen_ones
    if not met:
        unsolved = lambda self, episodes: [replace(e, success=False) for e in frozen(self, episodes)]  # noqa: E731
        monkeypatch.setattr(Gate, "_frozen_ones", unsolved)
    held(tune)
    updates, waiting = tune.runner.parts.updates.number, len(tune.runner.parts.updates._held)
    while tune.runner.parts.updates._held and tune.runner.result is None:
        waiting = len(tune.runner.parts.updates._held)
        tune.runner.step()
    assert waiting >= 1 and tune.runner.parts.updates.number == updates + (not met)
    result = tune.finish()

    assert result.outcome == outcome
    trained = [rollout.stage_steps for rollout in tune.rollouts() if rollout.phase == "training"]
    assert max(trained) < stage.max_steps + tune.learner.agent.rollout_steps


def test_a_gate_does_not_wait_for_an_episode_that_never_ends(monkeypatch):
    monkeypatch.setattr(phases, "MAX_EPISODE_STEPS", 200)
    stage = tuning(environment=Environment("toys:Endless"), critic_fit_steps=0, max_steps=640, evaluation_episodes=0)
    tune = Tune(stage)

    with refused("episode-endless", kind=Fault):
        tune.finish()
    tune.runner.close()


class Long:
    """Episodes longer than rollouts: a frozen look takes several of these."""

    stage = tuning(
        environment=Environment("toys:Echo", steps=40),
        until=SuccessThreshold(0.5, margin=0.3, window=4, max_episodes=120, frozen_episodes=6),
        critic_fit_steps=0,
        max_steps=60_000,
    )


def held(tune):
    while not tune.runner.parts.updates._held:
        tune.runner.step()
        assert tune.runner.result is None
    return tune


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_while_a_frozen_policy_plays_nothing_changes_and_a_run_can_stop(engine, tmp_path, monkeypatch):
    monkeypatch.setitem(QUICK, "engine", engine)
    settings = {"learning_rate": 1e-2, "n_epochs": 8}
    tune = held(Tune(Long.stage, **settings))
    frozen = tune.learner.weights()
    assert tune.rollouts()[-1].phase == "confirming"
    path = write_checkpoint(
        tmp_path, "held", {"learner": tune.learner.state_dict(), "runner": tune.runner.state_dict()}
    )
    tune.runner.step()
    # A second rollout is held too, or both have been learned from.
    assert same(frozen, tune.learner.weights()) == (
        len(tune.runner.parts.updates._held) == 2 or tune.runner.result is not None
    )
    result = tune.finish()
    assert result.outcome == "reached"

    state = read_checkpoint(path)
    again = Tune(Long.stage, learner_for(Long.stage.environment, agent(**settings), seed=9))
    again.learner.load_state_dict(state["learner"])
    again.runner.load_state_dict(state["runner"])
    again.learner.load_state_dict(state["learner"])
    after = again.finish()
    assert after.verdict == result.verdict
    assert same(tune.learner.weights(), again.learner.weights())


def test_steps_that_are_spent_while_a_confirmation_is_open_let_the_frozen_policy_play_to_its_end():
    stage = tuning("easy", Environment("toys:Always"), until=RewardThreshold(1.9, worst=0.0), max_steps=640)
    tune = Tune(stage)
    result = tune.finish()

    assert result.outcome == "reached"
    assert tune.recorder.payloads(Judged)[-1].verdict.met
