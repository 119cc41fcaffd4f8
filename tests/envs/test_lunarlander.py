import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

from rlstages_envs.lunarlander import land, lunarlander

pytestmark = pytest.mark.usefixtures("box2d")


def play(env, act, seed):
    observation, _ = env.reset(seed=seed)
    seen, rewards = [observation], []
    while True:
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        seen.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            return np.array(seen), rewards


def noisy(env, seed):
    expert, rng = land(env), np.random.default_rng(seed)
    return lambda observation: np.clip(expert(observation) + rng.normal(0, 0.3, 2), -1, 1).astype(np.float32)


@pytest.mark.parametrize("wind_power", [0.0, 15.0])
def test_an_episode_is_a_function_of_its_seed_and_actions(wind_power):
    used = lunarlander(wind_power)
    for seed in range(6):
        play(used, noisy(used, seed), seed)
    for seed in (40, 41, 42):
        np.random.seed(seed)
        fresh = lunarlander(wind_power)
        states, rewards = play(fresh, noisy(fresh, seed), seed)
        same_states, same_rewards = play(used, noisy(used, seed), seed)
        assert np.array_equal(states, same_states)
        assert rewards == same_rewards


def test_episodes_of_one_seeded_run_have_winds_of_their_own():
    env = lunarlander(15.0)
    env.reset(seed=3)
    winds = [(env.unwrapped.wind_idx, env.unwrapped.torque_idx)]
    for _ in range(4):
        env.reset()
        winds.append((env.unwrapped.wind_idx, env.unwrapped.torque_idx))
    assert len(set(winds)) == 5
    env.reset(seed=3)
    assert (env.unwrapped.wind_idx, env.unwrapped.torque_idx) == winds[0]


@pytest.mark.skipif("LunarLander-v3" not in gym.registry, reason="v2 does not draw its wind from the seed")
@pytest.mark.parametrize("wind_power", [0.0, 10.0])
def test_it_is_gymnasiums_lander_where_that_one_is_seeded(wind_power):
    stock = gym.make("LunarLander-v3", continuous=True, enable_wind=wind_power > 0, wind_power=wind_power)
    ours = lunarlander(wind_power)
    assert play(stock, land(stock), 5)[1] == play(ours, land(ours), 5)[1]


def test_expert_lands():
    env = lunarlander()
    returns = [sum(play(env, land(env), seed)[1]) for seed in range(20)]
    assert np.mean(returns) > 200


def test_wind_and_gravity_make_a_difference():
    def final(**physics):
        env = lunarlander(**physics)
        return tuple(play(env, lambda observation: np.zeros(2, np.float32), 0)[0][30])

    assert len({final(), final(wind_power=5.0), final(wind_power=20.0), final(gravity=-8.0)}) == 4
    calm, still = (final(wind_power=0.0, turbulence_power=power) for power in (0.0, 2.0))
    assert calm == still


def test_expert_acts_within_the_action_space():
    env = lunarlander(20.0)
    act = land(env)
    observation, _ = env.reset(seed=0)
    for _ in range(50):
        action = act(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)


def test_episodes_are_cut_after_1000_steps():
    env = lunarlander(gravity=-1.0)
    env.reset(seed=0)
    assert env.spec.max_episode_steps == 1000


# The wrapper is what is to be checked here.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*to get variables from other wrappers is deprecated")
@pytest.mark.parametrize("wind_power", [0.0, 10.0])
def test_checkers_accept_it(wind_power):
    check_gymnasium(lunarlander(wind_power), skip_render_check=True)
    check_sb3(lunarlander(wind_power))


@pytest.mark.parametrize(("physics", "name"), [({"wind_power": -1.0}, "wind_power"), ({"gravity": -12.0}, "gravity")])
def test_impossible_physics_are_refused(physics, name):
    with pytest.raises(ValueError, match=f"{name} is"):
        lunarlander(**physics)


def test_without_box2d_the_error_names_the_extra(monkeypatch):
    env = lunarlander()
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for use in (lunarlander, lambda: land(env)):
        with pytest.raises(ImportError, match=r'pip install "rlstages\[box2d\]"'):
            use()
