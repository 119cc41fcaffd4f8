"""The copies of a stage are brought back as they were, as the model sees them."""

import numpy as np
import pytest
from building import agent, echo, learner_for

from rlstages.environments.make import make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.rewards import NormalizedRewards
from rlstages.learners.algorithms.on_policy.rollout import collect
from rlstages.reproducibility import random_state, set_random_state
from rlstages.stages.fine_tuning.copies import copies_state, restore_copies

POLICIES = {"vector": "MlpPolicy", "discrete": "MlpPolicy", "image": "CnnPolicy", "dict": "MultiInputPolicy"}


def copies(environment, normalize):
    env = make_vec_env(environment, 4, 0, 0)
    return NormalizedRewards(env, gamma=0.9) if normalize else env


def play(learner, env, rollouts=1):
    for _ in range(rollouts):
        buffer = collect(learner.algorithm.model, env, learner.algorithm.engine, 0.95)
        monitor_of(env).take()
    return buffer.observations, buffer.actions, buffer.rewards, buffer.episode_starts, buffer.advantages


@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalized"])
@pytest.mark.parametrize(
    ("sees", "acts"),
    [
        *((sees, "discrete") for sees in POLICIES),
        *((sees, acts) for sees in ("vector", "dict") for acts in ("box", "multidiscrete", "multibinary")),
    ],
)
def test_a_rollout_after_coming_back_is_the_one_that_would_have_been(sees, acts, normalize):
    environment = echo(sees=sees, acts=acts, steps=11)
    learner = learner_for(environment, agent(policy=POLICIES[sees], engine="torch"))
    algorithm, lived, anew = learner.algorithm, copies(environment, normalize), copies(environment, normalize)
    algorithm.begin(lived)
    play(learner, lived, rollouts=3)
    state, draws = copies_state(algorithm, lived), random_state()
    expected = play(learner, lived)

    set_random_state(draws)
    lost = restore_copies(algorithm, anew, state)

    assert lost == [[]]
    np.testing.assert_equal(play(learner, anew), expected)
    np.testing.assert_equal(copies_state(algorithm, anew), copies_state(algorithm, lived))


def test_copies_that_do_not_come_back_start_their_next_episodes():
    environment = echo(steps=11)
    learner = learner_for(environment, agent())
    algorithm, lived = learner.algorithm, copies(environment, True)
    algorithm.begin(lived)
    play(learner, lived)
    state = copies_state(algorithm, lived)
    shorter = copies(echo(steps=2), True)

    [lost] = restore_copies(algorithm, shorter, state)

    ended = [copy for copy, length in enumerate(state["monitors"][0]["lengths"]) if length >= 2]
    assert ended and set(ended) <= set(lost)
    assert algorithm.standing()[1][ended].all()
    assert (shorter.returns[ended] == 0).all() and (monitor_of(shorter).lengths[ended] == 0).all()
    play(learner, shorter)
