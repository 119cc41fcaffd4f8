"""The PointMaze family: its two forms agree, walls hold, sensors tell the truth, and every maze can be solved."""

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from rlstages_envs.draws import fractions
from rlstages_envs.pointmaze import (
    RADIUS,
    RAYS,
    SIGHT,
    TOP_SPEED,
    WALL,
    BatchedPointMaze,
    follow_path,
    make_pointmaze,
)
from rlstages_envs.pointmaze_layout import lay_out

VARIANTS = st.fixed_dictionaries(
    {
        "size": st.integers(2, 8),
        "goals": st.integers(1, 4),
        "walls": st.floats(0, 1),
        "damping": st.floats(0.05, 1),
    }
)
SEEDS = st.integers(0, 2**63 - 1)


def started(num_envs=1, seed=0, **kwargs):
    env = BatchedPointMaze(num_envs, **kwargs)
    env.reset(seed=seed)
    return env


def in_wall(env, copy, x, y):
    """Whether places lie inside a wall or outside the maze, looked up without the environment's help."""
    x, y = np.asarray(x), np.asarray(y)
    column, row = (np.clip(np.floor(c).astype(int), 0, env.size - 1) for c in (x, y))
    across, along = (
        np.where(c - cell < WALL, -1, np.where(c - cell > 1 - WALL, 1, 0)) for c, cell in ((x, column), (y, row))
    )
    outside = (x <= 0) | (x >= env.size) | (y <= 0) | (y >= env.size)
    return outside | env.blocks[copy, 2 * row + 1 + along, 2 * column + 1 + across]


def ray_length(env, copy, ray):
    """Walk along a ray until a wall is met: the slow reference, exact to a thousandth of a cell."""
    turn = 2 * np.pi * ray / RAYS
    walk = np.linspace(0, SIGHT, 3001)
    x, y = env.positions[:, copy, None] + walk * np.array([[np.cos(turn)], [np.sin(turn)]])
    return walk[np.argmax(np.append(in_wall(env, copy, x, y)[:-1], True))]


# --- checkers --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_passes_both_checkers():
    for size in (2, 5):
        env = gym.make("rlstages_envs:rlstages/PointMaze-v0", size=size, goals=size - 1, render_mode="rgb_array")
        check_env(env.unwrapped)
        sb3_check_env(env.unwrapped)


def test_can_be_made_by_its_id():
    env = gym.make("rlstages_envs:rlstages/PointMaze-v0", size=4)
    assert env.unwrapped.batched.size == 4
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)


# --- batched and single, seeds ---------------------------------------------------------------------------------


@settings(max_examples=25)
@given(VARIANTS, st.lists(SEEDS, min_size=1, max_size=7), SEEDS)
def test_batched_and_single_agree_step_for_step(variant, seeds, action_seed):
    batched = BatchedPointMaze(len(seeds), **variant)
    singles = [make_pointmaze(**variant) for _ in seeds]
    seen, _ = batched.reset(seed=seeds)
    for copy, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=seeds[copy])[0], seen[copy])
    rng = np.random.default_rng(action_seed)
    for _ in range(15):
        actions = rng.uniform(-1, 1, (len(seeds), 2)).astype(np.float32)
        seen, rewards, terminated, truncated, infos = batched.step(actions)
        for copy, single in enumerate(singles):
            one = single.step(actions[copy])
            np.testing.assert_array_equal(one[0], seen[copy])
            assert one[1:4] == (rewards[copy], terminated[copy], truncated[copy])
            assert one[4] == {"is_success": infos["is_success"][copy]}


def test_an_episode_depends_on_its_seed_and_actions_alone():
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (30, 2)).astype(np.float32)
    fresh = started(1, seed=99, size=5)
    expected = [fresh.step(action[None])[0][0] for action in actions]
    used = started(3, seed=7, size=5)
    for _ in range(20):
        used.step(rng.uniform(-1, 1, (3, 2)).astype(np.float32))
    untouched = used.positions[:, [0, 2]].copy()
    used.reset(seed=[None, 99, None], options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(used.positions[:, [0, 2]], untouched)
    for action, observation in zip(actions, expected, strict=True):
        np.testing.assert_array_equal(used.step(np.stack([-action, action, action]))[0][1], observation)


def test_maze_start_and_goal_vary_with_the_seed():
    env = started(64, seed=0, size=7)
    assert len({maze.tobytes() for maze in env.blocks}) > 60
    assert len({place.tobytes() for place in env.positions.T.copy()}) == 64
    assert len({place.tobytes() for place in env.goal_positions[0].T.copy()}) > 8


def test_draws_are_fractions_spread_evenly():
    drawn = fractions(np.arange(2000, dtype=np.uint64), 10)
    assert drawn.shape == (2000, 10)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert abs(counts - 2000).max() < 200
    assert abs(np.corrcoef(drawn.T) - np.eye(10)).max() < 0.1


# --- mazes -----------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(VARIANTS, SEEDS)
def test_every_maze_joins_start_and_goal_and_is_closed(variant, seed):
    env = started(4, seed=[seed, 0, 1, 2], **variant)
    for copy in range(4):
        blocks = env.blocks[copy]
        assert blocks[0].all() and blocks[-1].all() and blocks[:, 0].all() and blocks[:, -1].all()
        assert blocks[::2, ::2].all() and not blocks[1::2, 1::2].any()
        cell = tuple(2 * int(c) + 1 for c in env.positions[::-1, copy])
        reached, queue = {cell}, deque([cell])
        while queue:
            row, column = queue.popleft()
            for after in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if not blocks[after] and after not in reached:
                    reached.add(after)
                    queue.append(after)
        assert len(reached) == (~blocks).sum()
        assert not in_wall(env, copy, *env.positions[:, copy])
        place = env.positions[:, copy]
        for goal in env.goal_positions[:, :, copy]:
            assert tuple(2 * int(c) + 1 for c in goal[::-1]) in reached
            assert abs(np.floor(place) - np.floor(goal)).sum() >= variant["size"] - 1
            place = goal


def test_walls_never_touch_and_leave_few_places_for_more():
    blocks = lay_out(np.arange(300, dtype=np.uint64), 7, 1.0, 1, 0.1).blocks
    inner = blocks[:, 1:-1, 1:-1].astype(int)
    walls = inner.copy()
    walls[:, 1::2, 1::2] = 0
    padded = np.pad(walls, ((0, 0), (1, 1), (1, 1)))
    per_post = padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:] + padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]
    at_posts = per_post[:, 1::2, 1::2]
    assert at_posts.max() == 1
    assert at_posts.mean() > 0.7
    assert not (walls[:, 0] | walls[:, -1] | walls[:, :, 0] | walls[:, :, -1]).any()


def test_walls_set_how_many_there_are():
    def count(walls):
        # 36 posts, and the outer wall.
        return lay_out(np.arange(500, dtype=np.uint64), 7, walls, 1, 0.1).blocks.sum() / 500 - 36 - 56

    assert count(0.0) == 0
    assert count(0.5) == pytest.approx(count(1.0) / 2, rel=0.05)


# --- motion ----------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(VARIANTS, SEEDS, st.sampled_from(["random", "extreme", "steady"]))
def test_the_point_never_enters_or_tunnels_a_wall(variant, seed, kind):
    env = started(5, seed=seed % 2**32, **variant)
    rng = np.random.default_rng(seed)
    steady = rng.choice([-1.0, 1.0], (5, 2))
    for _ in range(60):
        actions = {
            "random": rng.uniform(-1, 1, (5, 2)),
            "extreme": rng.choice([-1e9, 1e9], (5, 2)),
            "steady": steady,
        }[kind].astype(np.float32)
        before = env.positions.copy()
        env.advance(actions)
        for copy in range(5):
            # The point goes along x and then along y; no place on the way may be in a wall.
            (x0, y0), (x1, y1) = before[:, copy], env.positions[:, copy]
            shares = np.linspace(0, 1, 9)
            assert not in_wall(env, copy, x0 + shares * (x1 - x0), y0).any()
            assert not in_wall(env, copy, x1, y0 + shares * (y1 - y0)).any()


@settings(max_examples=15)
@given(VARIANTS, SEEDS)
def test_walls_take_speed_and_never_give_any(variant, seed):
    env = started(5, seed=seed % 2**32, **variant)
    rng = np.random.default_rng(seed)
    for _ in range(40):
        env.advance(rng.uniform(-1, 1, (5, 2)).astype(np.float32))
        pushed = abs(env.velocities)
        assert (pushed <= TOP_SPEED + 1e-12).all()
        env.advance(np.zeros((5, 2), dtype=np.float32))
        assert (abs(env.velocities) <= pushed).all()


def test_the_point_slides_along_a_wall():
    env = started(1, seed=3, size=4, walls=0.0)
    env.positions[:] = [[0.5], [0.5]]
    for _ in range(8):
        env.advance(np.array([[0.3, -1.0]], dtype=np.float32))
    assert env.positions[1, 0] == pytest.approx(WALL, abs=1e-5)
    assert env.positions[0, 0] > 0.8
    assert env.velocities[1, 0] == 0.0


def test_actions_out_of_range_are_clipped():
    wild, tame = started(3, seed=5), started(3, seed=5)
    for _ in range(10):
        seen = wild.step(np.full((3, 2), 37.0, dtype=np.float32))[0]
        np.testing.assert_array_equal(seen, tame.step(np.ones((3, 2), dtype=np.float32))[0])


# --- observations ----------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(VARIANTS, SEEDS)
def test_sensors_agree_with_a_slow_ray_cast(variant, seed):
    env = started(2, seed=seed % 2**32, **variant)
    rng = np.random.default_rng(seed)
    for copy in range(2):
        while True:
            place = rng.uniform(0, env.size, 2)
            if not in_wall(env, copy, *place):
                break
        env.positions[:, copy] = place
    lengths = env.sensors.measure(env.positions)
    for copy in range(2):
        # A ray that grazes a corner may go either way.
        expected = np.array([ray_length(env, copy, ray) for ray in range(RAYS)])
        assert (abs(lengths[:, copy] - expected) > 2e-3).sum() <= 1


@settings(max_examples=25)
@given(VARIANTS, SEEDS)
def test_observations_lie_in_the_space(variant, seed):
    env = BatchedPointMaze(6, **variant)
    rng = np.random.default_rng(seed)
    observations, _ = env.reset(seed=seed % 2**32)
    pushes = rng.choice([-1.0, 1.0], (6, 2)).astype(np.float32)
    for _ in range(30):
        assert observations.dtype == np.float32
        assert env.observation_space.contains(observations)
        observations = env.step(pushes)[0]


def test_observation_says_where_the_next_goal_is():
    env = started(1, seed=0, size=5, goals=2, walls=0.0)
    env.positions[:] = [[0.5], [0.5]]
    env.goal_positions[:] = [[[3.5], [4.5]], [[0.5], [1.5]]]
    seen = env.observe()[0]
    np.testing.assert_allclose(seen[RAYS + 2 : RAYS + 6], [0.6, 0.8, 5 / 7, 1 / 2], rtol=1e-6)
    env.reached[:] = 1
    seen = env.observe()[0]
    np.testing.assert_allclose(seen[RAYS + 2 : RAYS + 6], [0.0, 1.0, 1 / 3, 0.0], atol=1e-6)


def test_observation_remembers_where_the_point_was():
    env = started(1, seed=0, size=5, walls=0.0)
    env.positions[:] = env.past[:] = 0.5
    still = env.observe()[0][-4:]
    np.testing.assert_array_equal(still, 0.0)
    for _ in range(5):
        seen = env.step(np.array([[1.0, 0.0]], dtype=np.float32))[0][0]
    # The shorter memory has caught up more than the longer one.
    assert 0.1 < seen[-4] < seen[-2] < (env.positions[0, 0] - 0.5)
    np.testing.assert_array_equal(seen[[-3, -1]], 0.0)


# --- rewards and ends ------------------------------------------------------------------------------------------


def test_the_goal_ends_the_episode_with_a_reward_that_falls_with_time():
    env = started(2, seed=0, size=3, walls=0.0)
    still = np.zeros((2, 2), dtype=np.float32)
    for _ in range(4):
        _, rewards, terminated, truncated, infos = env.step(still)
        assert not (rewards.any() or terminated.any() or truncated.any() or infos["is_success"].any())
    env.positions[:, 0] = env.goal_positions[0, :, 0] + [0.0, 0.9 * RADIUS]
    _, rewards, terminated, truncated, infos = env.step(still)
    np.testing.assert_allclose(rewards, [1 - 0.9 * 5 / env.max_steps, 0.0])
    np.testing.assert_array_equal(terminated, [True, False])
    np.testing.assert_array_equal(infos["is_success"], [True, False])
    assert infos["is_success"].dtype == np.bool_
    assert not truncated.any()


def test_goals_count_in_their_order_and_only_the_last_is_rewarded():
    env = started(1, seed=4, size=5, goals=3)
    still = np.zeros((1, 2), dtype=np.float32)

    def visit(goal):
        env.positions[:] = env.goal_positions[goal]
        _, rewards, terminated, _, infos = env.step(still)
        assert rewards[0] > 0 or not (terminated[0] or infos["is_success"][0])
        return float(rewards[0])

    assert [visit(goal) for goal in (2, 1, 0, 2, 1)] == [0.0] * 5
    assert visit(2) == pytest.approx(1 - 0.9 * 6 / env.max_steps)


def test_time_runs_out_at_max_steps_and_a_late_success_still_counts():
    env = started(2, seed=0, max_steps=6)
    still = np.zeros((2, 2), dtype=np.float32)
    for step in range(1, 7):
        if step == 6:
            env.positions[:, 0] = env.goal_positions[0, :, 0]
        _, rewards, terminated, truncated, _ = env.step(still)
        np.testing.assert_array_equal(truncated, [False, step == 6])
        np.testing.assert_array_equal(terminated, [step == 6, False])
    np.testing.assert_allclose(rewards, [0.1, 0.0])


def test_the_time_limit_grows_with_size_and_goals():
    assert BatchedPointMaze(1, size=8).max_steps == 2 * BatchedPointMaze(1, size=4).max_steps
    assert BatchedPointMaze(1, size=4, goals=3).max_steps == 3 * BatchedPointMaze(1, size=4).max_steps
    assert BatchedPointMaze(1, size=8, max_steps=17).max_steps == 17


# --- arguments, pictures, expert -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"size": 1}, "PointMaze: size is 1; give a whole number from 2 to 30."),
        ({"size": 4.0}, "PointMaze: size is 4.0; give a whole number from 2 to 30."),
        ({"size": True}, "PointMaze: size is True; give a whole number from 2 to 30."),
        ({"goals": 0}, "PointMaze: goals is 0; give a whole number from 1 to 10."),
        ({"walls": 1.5}, "PointMaze: walls is 1.5; give a number from 0 to 1."),
        ({"walls": float("nan")}, "PointMaze: walls is nan; give a number from 0 to 1."),
        ({"damping": 0}, "PointMaze: damping is 0; give a number from 0.05 to 1."),
        ({"walls": "half"}, "PointMaze: walls is 'half'; give a number from 0 to 1."),
        ({"max_steps": 0}, "PointMaze: max_steps is 0; give a whole number at least 1."),
        ({"render_mode": "human"}, "render_mode is 'human'; it must be None or 'rgb_array'"),
    ],
)
def test_bad_arguments_are_named(kwargs, sentence):
    with pytest.raises(ValueError) as raised:
        make_pointmaze(**kwargs)
    assert str(raised.value) == sentence


def test_pictures_show_the_point_where_it_is():
    env = make_pointmaze(size=4, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8
    assert before.shape == (480, 480, 3)
    for _ in range(6):
        env.step(np.array([1.0, 1.0], dtype=np.float32))
    x, y = env.batched.positions[:, 0]
    row, column = int(y * 120), int(x * 120)
    after = env.render()
    assert (after[row, column] != before[row, column]).any()
    assert (after != before).any(axis=2).mean() < 0.5
    assert make_pointmaze().render() is None


@pytest.mark.parametrize("variant", [{}, {"size": 9, "goals": 2}, {"size": 6, "damping": 0.05}])
def test_the_expert_solves_what_it_is_given(variant):
    env = gym.make("rlstages_envs:rlstages/PointMaze-v0", **variant)
    act = follow_path(env)
    solved = []
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            observation, _, terminated, truncated, info = env.step(act(observation))
            ended = terminated or truncated
        solved.append(info["is_success"])
    assert np.mean(solved) >= 0.99
