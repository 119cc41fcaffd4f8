import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

from rlstages_envs.cartpole import balance, cartpole, regulator

VARIANTS = [
    {},
    {"pole_length": 0.1, "gravity": 20.0},
    {"pole_length": 0.1, "gravity": 25.0},
    {"pole_length": 3.0, "force": 5.0},
    {"pole_mass": 1.0, "force": 5.0, "gravity": 20.0},
]


def play(env, act, seed):
    observation, _ = env.reset(seed=seed)
    seen, total = [observation], 0.0
    while True:
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        seen.append(observation)
        total += reward
        if terminated or truncated:
            return np.array(seen), total


@pytest.mark.parametrize("physics", VARIANTS)
def test_expert_balances(physics):
    env = cartpole(**physics)
    assert [play(env, balance(env), seed)[1] for seed in range(5)] == [500.0] * 5


def test_expert_depends_on_the_physics():
    easy, hard = cartpole(), cartpole(**VARIANTS[3])
    returns = [play(hard, balance(easy), seed)[1] for seed in range(5)]
    assert max(returns) < 300
    assert not np.allclose(regulator(easy.unwrapped), regulator(hard.unwrapped))


def test_regulator_knows_the_equations_of_the_environment():
    """The state it predicts after one small push is the one that `step` reaches."""
    physics = {"pole_length": 0.3, "force": 0.01, "gravity": 12.0, "pole_mass": 0.7}
    sim = cartpole(**physics).unwrapped
    sim.reset(seed=0)
    sim.state = np.array([0.0, 0.0, 1e-4, 0.0])
    sim.step(1)
    inertia = 0.3 * (4 / 3 - 0.7 / 1.7)
    angular = (12.0 * 1e-4 - 0.01 / 1.7) / inertia
    assert sim.state[3] == pytest.approx(sim.tau * angular, rel=1e-5)
    assert sim.state[1] == pytest.approx(sim.tau * (0.01 / 1.7 - 0.7 * 0.3 / 1.7 * angular), rel=1e-5)


def test_defaults_are_cartpole_v1():
    ours, stock = cartpole(), gym.make("CartPole-v1")
    for seed in range(3):
        assert np.array_equal(play(ours, balance(ours), seed)[0], play(stock, balance(stock), seed)[0])


def test_physics_are_consistent_and_each_one_counts():
    def final(**physics):
        return tuple(play(cartpole(**physics), lambda observation: 1, 0)[0][5])

    sim = cartpole(pole_length=0.2, pole_mass=0.5).unwrapped
    assert sim.total_mass == pytest.approx(1.5)
    assert sim.polemass_length == pytest.approx(0.1)
    variants = [{}, {"pole_length": 1.0}, {"force": 5.0}, {"gravity": 20.0}, {"pole_mass": 1.0}]
    assert len({final(**variant) for variant in variants}) == len(variants)


def test_max_steps_truncates():
    env = cartpole(max_steps=30)
    assert play(env, balance(env), 0)[1] == 30.0


def test_an_episode_is_a_function_of_its_seed():
    used = cartpole(**VARIANTS[2])
    for seed in range(3):
        play(used, balance(used), seed)
    fresh = cartpole(**VARIANTS[2])
    assert np.array_equal(play(used, balance(used), 9)[0], play(fresh, balance(fresh), 9)[0])


@pytest.mark.parametrize("name", ["pole_length", "force", "gravity", "pole_mass"])
def test_impossible_physics_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0.0"):
        cartpole(**{name: 0.0})


# The wrapper is what is to be checked here, and speeds have no bounds in gymnasium's CartPole either.
@pytest.mark.filterwarnings("ignore:.*Box observation space (min|max)imum value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*to get variables from other wrappers is deprecated")
def test_checkers_accept_it():
    check_gymnasium(cartpole(**VARIANTS[1]), skip_render_check=True)
    check_sb3(cartpole(**VARIANTS[1]))
