"""Whether an environment can be brought back is found out by trying."""

import numpy as np
import pytest

from rlstages import Environment
from rlstages.environments.determinism import doubts_about


@pytest.mark.parametrize(
    "environment",
    [
        Environment("CartPole-v1"),
        Environment("Pendulum-v1", vectorize="subprocess"),
        Environment("FrozenLake-v1"),
        Environment("rlstages_envs:rlstages/Rooms-v0", rooms=3, keys=1),
        Environment("rlstages_envs:rlstages/PointMaze-v0", size=4),
        Environment("rlstages_envs:rlstages/PointMaze-v0", size=4, vectorize="in-process"),
        Environment("toys:Echo", sees="dict"),
        Environment("toys:Echo", sees="image"),
    ],
    ids=str,
)
def test_environments_that_depend_on_seed_and_actions_alone(environment):
    assert doubts_about(environment) == []


def test_an_environment_into_which_earlier_episodes_leak_is_named(box2d):
    (doubt,) = doubts_about(Environment("BipedalWalkerHardcore-v3"))

    assert doubt.startswith("BipedalWalkerHardcore-v3 cannot be brought back by the seed and actions of an episode (")


@pytest.mark.parametrize("name", ["Drifting", "Unseeded"])
def test_environments_that_depend_on_more_are_named(name):
    assert "came out otherwise" in doubts_about(Environment(f"toys:{name}"))[0]


def test_the_generators_stay_where_they_are():
    before = np.random.get_state()[1].copy()

    doubts_about(Environment("toys:Unseeded"))

    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_an_environment_that_fails_is_not_judged():
    assert doubts_about(Environment("toys:Echo", fault="error")) == []
