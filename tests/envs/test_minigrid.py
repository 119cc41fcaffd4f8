import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("minigrid")

from gymnasium.utils.env_checker import check_env as check_gymnasium
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall
from minigrid.envs import DoorKeyEnv, MultiRoomEnv
from minigrid.minigrid_env import MiniGridEnv
from minigrid.wrappers import OneHotPartialObsWrapper
from stable_baselines3.common.env_checker import check_env as check_sb3

from rlstages_envs import minigrid as module
from rlstages_envs.minigrid import OneHotView, doorkey, multiroom, plan_minigrid, reached_goal

TASKS = {
    "N2-S4": lambda: multiroom(2, 2, 4),
    "N4-S5": lambda: multiroom(4, 4, 5),
    "N2-3": lambda: multiroom(2, 3),
    "N3-4": lambda: multiroom(3, 4),
    "N6": lambda: multiroom(6, 6),
    "DoorKey-5": lambda: doorkey(5),
    "DoorKey-8": lambda: doorkey(8),
    "DoorKey-16": lambda: doorkey(16),
}


def play(env, act, seed):
    observation, _ = env.reset(seed=seed)
    seen, rewards = [observation], []
    while True:
        observation, reward, terminated, truncated, info = env.step(act(observation))
        seen.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            return np.array(seen), sum(rewards), len(rewards), info


def stumble(expert, rng, observation):
    return expert(observation) if rng.random() < 0.7 else int(rng.integers(7))


def slow_one_hot(image):
    bits = []
    for column in image:
        for cell in column:
            for value, choices in zip(cell, (11, 6, 3), strict=True):
                bits += [float(value == choice) for choice in range(choices)]
    return bits


@pytest.mark.parametrize("task", TASKS)
def test_expert_reaches_the_goal_of_every_episode(task):
    env = TASKS[task]()
    act = plan_minigrid(env)
    for seed in range(25):
        _, episode_return, length, info = play(env, act, seed)
        assert reached_goal(info, episode_return, length), seed


def test_expert_finds_its_way_back_after_leaving_its_path():
    for env in (doorkey(8), multiroom(4, 4, 5, max_steps=600)):
        expert = plan_minigrid(env)
        for seed in range(20):
            rng = np.random.default_rng(seed)
            # Random actions turn, drop the key, close doors and walk off.
            assert play(env, partial(stumble, expert, rng), seed)[1] > 0, seed


def test_expert_gets_past_a_key_that_lies_in_the_only_way():
    env = doorkey(6)
    sim = env.unwrapped
    act = plan_minigrid(env)
    observation, _ = env.reset(seed=0)
    door = next(cell for cell in sim.grid.grid if isinstance(cell, Door))
    while door.is_locked:
        observation, *_ = env.step(act(observation))
    key, sim.carrying = sim.carrying, None
    key.cur_pos = door.cur_pos
    sim.grid.set(*door.cur_pos, key)
    terminated = False
    for _ in range(30):
        observation, _, terminated, *_ = env.step(act(observation))
        if terminated:
            break
    assert terminated


@pytest.mark.parametrize(("make", "targets"), [(lambda: multiroom(4, 4, 5), 1), (lambda: doorkey(8), 3)])
def test_expert_searches_once_per_target(make, targets, monkeypatch):
    searches = []
    route = module._route
    monkeypatch.setattr(module, "_route", lambda *given: searches.append(given) or route(*given))
    env = make()
    act = plan_minigrid(env)
    for seed in range(5):
        play(env, act, seed)
    assert len(searches) == 5 * targets


def test_observation_is_minigrids_own_one_hot_view():
    rng = np.random.default_rng(0)
    for fast, slow in (
        (multiroom(3, 4), MultiRoomEnv(3, 4)),
        (doorkey(6), DoorKeyEnv(6)),
    ):
        slow = OneHotPartialObsWrapper(slow)
        expert = plan_minigrid(fast)
        for seed in range(4):
            ours, theirs = fast.reset(seed=seed)[0], slow.reset(seed=seed)[0]["image"]
            over = False
            while not over:
                assert ours.dtype == np.float32
                assert np.array_equal(ours, theirs.ravel())
                action = expert(ours) if rng.random() < 0.8 else int(rng.integers(7))
                ours, reward, *ended, _ = fast.step(action)
                theirs, same_reward, *same_ended, _ = slow.step(action)
                theirs = theirs["image"]
                assert (reward, ended) == (same_reward, same_ended)
                over = any(ended)


def test_view_equals_minigrids_in_any_grid_and_at_its_edges():
    rng = np.random.default_rng(1)
    env = doorkey(8)
    env.reset(seed=0)
    sim = env.unwrapped
    kinds = [lambda: None] * 12 + [Wall, Goal, Lava]
    kinds += [lambda: Key("red"), lambda: Ball("blue"), lambda: Box("grey")]
    kinds += [lambda: Door("green"), lambda: Door("purple", is_open=True), lambda: Door("yellow", is_locked=True)]
    for _ in range(300):
        sim.grid.grid = [kinds[i]() for i in rng.integers(len(kinds), size=64)]
        sim.agent_pos = tuple(rng.integers(8, size=2))
        sim.agent_dir = int(rng.integers(4))
        sim.carrying = Key("blue") if rng.random() < 0.5 else None
        image = MiniGridEnv.gen_obs(sim)["image"]
        assert np.array_equal(sim.gen_obs()["image"], image)
        assert env.observation(sim.gen_obs()).tolist() == slow_one_hot(image)


def test_numbers_reach_minigrid():
    sim = multiroom(2, 3, 6).unwrapped
    assert (sim.minNumRooms, sim.maxNumRooms, sim.maxRoomSize, sim.max_steps) == (2, 3, 6, 60)
    assert multiroom(2, 3, max_steps=77).unwrapped.max_steps == 77
    assert (doorkey(6).unwrapped.width, doorkey(6).unwrapped.max_steps) == (6, 360)
    env = multiroom(2, 2, 4)
    assert (env.action_space.n, env.observation_space.shape) == (7, (980,))
    rooms = set()
    env = multiroom(2, 3)
    for seed in range(20):
        env.reset(seed=seed)
        rooms.add(len(env.unwrapped.rooms))
    assert rooms == {2, 3}


def test_an_episode_is_a_function_of_its_seed():
    used = multiroom(2, 3)
    for seed in range(5):
        play(used, plan_minigrid(used), seed)
    for seed in (7, 8):
        fresh = multiroom(2, 3)
        again, replay = play(used, plan_minigrid(used), seed), play(fresh, plan_minigrid(fresh), seed)
        assert np.array_equal(again[0], replay[0])
        assert again[1:3] == replay[1:3]


@pytest.mark.parametrize("make", [lambda: multiroom(2, 2, 4), lambda: doorkey(5)])
# The wrapper is what is to be checked here.
@pytest.mark.filterwarnings(r"ignore:[\s\S]*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*to get variables from other wrappers is deprecated")
def test_checkers_accept_it(make):
    for check in (partial(check_gymnasium, skip_render_check=True), check_sb3):
        env = make()
        # The older MiniGrid cannot be printed before its first reset, and one checker prints it.
        env.reset(seed=0)
        check(env)


def test_reached_goal_needs_a_reward():
    assert not reached_goal({}, 0.0, 40)
    assert reached_goal({}, 0.1, 40)


@pytest.mark.parametrize("make", [lambda: multiroom(2, 2), doorkey])
def test_without_minigrid_the_error_names_the_extra(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(ImportError, match=r'pip install "rlstages\[minigrid\]"'):
        make()


def test_rendering_still_works():
    env = OneHotView(MultiRoomEnv(2, 2, 4, render_mode="rgb_array"))
    env.reset(seed=0)
    assert env.render().std() > 0
