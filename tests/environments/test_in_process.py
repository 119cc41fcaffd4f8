"""Copies in one process do what stable-baselines3's do, without its deep copies."""

import gymnasium as gym
import numpy as np
import pytest
from building import echo
from stable_baselines3.common.vec_env import DummyVecEnv

from rlstages import Environment
from rlstages.environments.guard import Guarded
from rlstages.environments.in_process import InProcess
from rlstages.environments.make import make_environment
from rlstages.environments.seeding import EpisodeSeeds, Purpose, SeededEpisodes


def makers(make):
    seeds = [EpisodeSeeds(5, 0, Purpose.TRAINING, copy) for copy in range(3)]
    return [lambda s=s, i=i: SeededEpisodes(Guarded(make(), i, 60.0), s) for i, s in enumerate(seeds)]


def in_process(environment):
    return InProcess(makers(lambda: make_environment(environment)))


@pytest.mark.parametrize(
    "environment",
    [Environment("CartPole-v1"), *(echo(sees=sees, steps=5) for sees in ("vector", "dict", "discrete", "image"))],
    ids=str,
)
def test_steps_are_those_of_stable_baselines3(environment):
    ours, theirs = in_process(environment), DummyVecEnv(makers(lambda: make_environment(environment)))
    np.testing.assert_equal(ours.reset(), theirs.reset())
    draw = np.random.default_rng(0)
    ended = 0
    for _ in range(40):
        actions = draw.integers(0, ours.action_space.n, 3)
        (*seen, infos), (*expected, other_infos) = ours.step(actions), theirs.step(actions)
        np.testing.assert_equal(seen, expected)
        for info, other, done in zip(infos, other_infos, seen[2], strict=True):
            # Told only where an episode ended.
            np.testing.assert_equal(info, other if done else {k: v for k, v in other.items() if "Limit" not in k})
        ended += int(seen[2].sum())
    assert ended > 3


def test_every_step_goes_through_the_guard(monkeypatch):
    env, steps, plain = in_process(Environment("CartPole-v1")), [], Guarded.step

    def step(self, action):
        steps.append(self.copy)
        return plain(self, action)

    monkeypatch.setattr(Guarded, "step", step)
    env.reset()
    for _ in range(2):
        env.step(np.ones(3, np.int64))

    assert steps == [0, 1, 2] * 2


def test_what_was_returned_stays_as_it_was():
    env = in_process(Environment("CartPole-v1"))
    observations = env.reset()
    kept = [observations.copy()]
    returned = [observations]
    for _ in range(5):
        step = env.step(np.ones(3, np.int64))
        returned += step[:3]
        kept += [part.copy() for part in step[:3]]

    np.testing.assert_equal(returned, kept)


class SameInfo(gym.Wrapper):
    """Returns one dictionary at every step, and ends every episode at once."""

    told = {"is_success": True}

    def step(self, action):
        observation, reward, *_ = self.env.step(action)
        return observation, reward, True, False, self.told


def test_an_environments_own_dictionary_is_not_written_into():
    env = InProcess(makers(lambda: SameInfo(gym.make("CartPole-v1"))))
    env.reset()
    *_, infos = env.step(np.zeros(3, np.int64))

    assert SameInfo.told == {"is_success": True}
    assert all(info["is_success"] and "terminal_observation" in info for info in infos)
    assert infos[0] is not infos[1]
