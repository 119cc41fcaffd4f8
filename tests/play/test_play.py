"""A frozen policy plays episodes of its own."""

import random

import numpy as np
import pytest
import torch
from building import agent, echo, learner_for
from refusing import refused

from rlstages import Environment
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.errors import Fault
from rlstages.learners.algorithms.on_policy.rollout import collect
from rlstages.play.play import play_episodes, play_wave


def copies(environment, n_envs=3):
    return make_vec_env(environment, n_envs, 0, 0, Purpose.EVALUATION)


def test_a_wave_is_one_episode_per_copy_by_its_start():
    learner = learner_for(Environment("toys:Uneven"))
    env = copies(Environment("toys:Uneven"), 4)

    for seed in (10, 20):
        episodes = play_wave(learner.algorithm, env, seed, deterministic=False)
        lengths = [make_environment(Environment("toys:Uneven")).unwrapped.length_of(seed + copy) for copy in range(4)]
        assert [episode.copy for episode in episodes] == [0, 1, 2, 3]
        assert [episode.number for episode in episodes] == [0, 0, 0, 0]
        assert [episode.length for episode in episodes] == lengths
        assert len(set(lengths)) > 1


def test_the_same_numbers_give_the_same_episodes_and_other_numbers_others():
    learner, env = learner_for(echo()), copies(echo())

    def play(run_seed, stage=0):
        return play_episodes(learner.algorithm, env, 9, run_seed, stage, deterministic=True)

    assert play(0) == play(0)
    assert play(0) != play(1)
    assert play(0) != play(0, stage=1)


def test_at_least_as_many_episodes_as_asked_for_in_whole_waves():
    learner, env = learner_for(echo()), copies(echo())

    for asked, played in ((1, 3), (3, 3), (4, 6)):
        assert len(play_episodes(learner.algorithm, env, asked, 0, 0, True)) == played


def test_waves_play_different_episodes():
    learner, env = learner_for(Environment("toys:Uneven")), copies(Environment("toys:Uneven"))

    lengths = [episode.length for episode in play_episodes(learner.algorithm, env, 9, 0, 0, True)]

    sim = make_environment(Environment("toys:Uneven")).unwrapped
    seeds = [episode_seed(0, 0, Purpose.EVALUATION, 0, wave) + copy for wave in range(3) for copy in range(3)]
    assert lengths == [sim.length_of(seed) for seed in seeds]


def test_the_policy_is_not_changed():
    learner, env = learner_for(echo()), copies(echo())
    before = learner.weights()

    play_episodes(learner.algorithm, env, 6, 0, 0, deterministic=False)

    assert all(torch.equal(value, before[name]) for name, value in learner.weights().items())


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def next_draws(seed):
    seed_all(seed)
    return random.random(), np.random.random(), torch.rand(1).item()


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_draws_depend_on_the_seed_alone_and_move_no_other_generator(engine):
    learner, env = learner_for(echo(), agent(engine=engine)), copies(echo())
    totals = []
    for elsewhere, run_seed in ((1, 0), (2, 0), (1, 3)):
        expected, before = next_draws(elsewhere), learner.algorithm.engine.state_dict()
        seed_all(elsewhere)
        totals.append(
            [episode.total_reward for episode in play_episodes(learner.algorithm, env, 30, run_seed, 0, False)]
        )
        assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
        assert learner.algorithm.engine.state_dict() == before

    assert totals[0] == totals[1]
    assert totals[0] != totals[2]


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_rollout_is_the_same_whether_or_not_the_policy_was_examined_before(engine):
    played = []
    for episodes in (0, 6):
        learner = learner_for(echo(), agent(engine=engine))
        play_episodes(learner.algorithm, copies(echo()), episodes, 0, 0, False)
        env = copies(echo(), learner.agent.n_envs)
        learner.algorithm.begin(env)
        played.append(collect(learner.algorithm.model, env, learner.algorithm.engine, 0.95).actions.copy())

    assert np.array_equal(*played)


def test_episodes_that_do_not_end_are_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr("rlstages.play.play.MAX_EPISODE_STEPS", 50)
    env = copies(Environment("toys:Endless"), 2)

    with refused("episode-endless", kind=Fault):
        play_wave(learner_for(Environment("toys:Endless")).algorithm, env, 0, False)
