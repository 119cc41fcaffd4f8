"""The Rooms family: its two forms agree, every layout can be solved, and only in the way the rules say."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_sb3_env

from rlstages_envs.draws import SeededDraws
from rlstages_envs.rooms import (
    FORWARD,
    PICK_UP,
    TOGGLE,
    TURN_LEFT,
    TURN_RIGHT,
    VIEW,
    BatchedRooms,
    make_rooms,
    plan_rooms,
)
from rlstages_envs.rooms_layout import (
    CLOSED_DOOR,
    FLOOR,
    GOAL,
    HEADINGS,
    KEY,
    LOCKED_DOOR,
    OPEN_DOOR,
    UNSEEN,
    WALL,
    lay_out,
    self_avoiding_walks,
)

VARIANTS = [{}, {"rooms": 3, "keys": 2}, {"rooms": 6, "keys": 3}, {"rooms": 5, "size": 3, "keys": 4}, {"rooms": 10}]

variants = st.integers(2, 6).flatmap(
    lambda rooms: st.fixed_dictionaries(
        {"rooms": st.just(rooms), "size": st.integers(3, 8), "keys": st.integers(0, rooms - 1)}
    )
)
seeds = st.integers(0, 2**64 - 1)


def play(env, act, seed):
    """Play one episode; return its steps as `(observation, action, reward, terminated, truncated, info)`."""
    observation, _ = env.reset(seed=seed)
    steps = []
    while not steps or not (steps[-1][3] or steps[-1][4]):
        action = act(observation)
        before = observation
        observation, *rest = env.step(action)
        steps.append((before, action, *rest))
    return steps


def room_around(cells, start, barriers):
    """Return the cells that can be walked to from `start`, in a grid where `barriers` stop the walk."""
    side = cells.shape[1]
    flat, reached, queue = cells.reshape(-1), {start}, [start]
    while queue:
        cell = queue.pop()
        for beside in (cell + 1, cell - 1, cell + side, cell - side):
            if beside not in reached and flat[beside] not in barriers:
                reached.add(beside)
                queue.append(beside)
    return reached


def corridor(things, **kwargs):
    """Return a batched environment whose agent faces east along a row of `things`, in an otherwise empty room."""
    env = BatchedRooms(1, size=9, **kwargs)
    env.reset(seed=0)
    middle = env.side // 2
    env.cells[:] = WALL
    env.cells[0, middle - 3 : middle + 4, middle - 3 : middle + 4] = FLOOR
    env.cells[0, middle, middle + 1 : middle + 1 + len(things)] = things
    env.positions[:] = middle * (env.side + 1)
    env.headings[:] = 0
    return env


def cells_ahead(env):
    """Return what lies in each copy's view, shape `(num_envs, VIEW, VIEW)`, hidden or not."""
    ahead, aside = np.meshgrid(np.arange(VIEW), np.arange(VIEW) - VIEW // 2, indexing="ij")
    views = []
    for cells, position, heading in zip(env.cells, env.positions, env.headings, strict=True):
        forward, right = HEADINGS[heading], HEADINGS[(heading + 1) % 4]
        row, column = divmod(position, env.side)
        rows, columns = (ahead * forward[i] + aside * right[i] for i in range(2))
        views.append(cells[row + rows, column + columns])
    return np.stack(views)


def one_step(env, action):
    return env.step(np.array([action]))


# --- the interface ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", VARIANTS[:3])
def test_it_passes_the_environment_checkers(kwargs):
    env = gym.make("rlstages_envs:rlstages/Rooms-v0", **kwargs).unwrapped
    check_env(env, skip_render_check=True)
    check_sb3_env(env)


def test_gym_make_passes_the_arguments_on_and_draws():
    env = gym.make("rlstages_envs:rlstages/Rooms-v0", rooms=3, keys=1, render_mode="rgb_array")
    assert env.unwrapped.batched.rooms == 3
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (480, 480, 3) and frame.dtype == np.uint8
    agent, goal, key = (248, 81, 73), (63, 185, 80), (242, 204, 96)
    assert {agent, goal, key} <= {tuple(colour) for colour in frame.reshape(-1, 3).tolist()}
    env.step(TURN_LEFT)
    assert (env.render() != frame).any()
    assert make_rooms().render() is None


@pytest.mark.parametrize("rooms", [2, 6, 10])
def test_pictures_have_one_shape_whatever_the_layout(rooms):
    batched = BatchedRooms(4, rooms, render_mode="rgb_array")
    batched.reset(seed=0)
    assert {frame.shape for frame in batched.render()} == {(480, 480, 3)}


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"rooms": 1}, "Rooms: rooms is 1; give a whole number from 2 to 10."),
        ({"rooms": 11}, "Rooms: rooms is 11; give a whole number from 2 to 10."),
        ({"rooms": 2.5}, "Rooms: rooms is 2.5; give a whole number from 2 to 10."),
        ({"rooms": True}, "Rooms: rooms is True; give a whole number from 2 to 10."),
        ({"size": 2}, "Rooms: size is 2; give a whole number of at least 3."),
        ({"keys": -1}, "Rooms: keys is -1; give a whole number from 0 to 1, fewer than there are rooms."),
        ({"rooms": 4, "keys": 4}, "Rooms: keys is 4; give a whole number from 0 to 3, fewer than there are rooms."),
        ({"max_steps": 0}, "Rooms: max_steps is 0; give a whole number of at least 1."),
        ({"max_steps": "9"}, "Rooms: max_steps is '9'; give a whole number of at least 1."),
        ({"render_mode": "human"}, "render_mode is 'human'; it must be None or 'rgb_array'"),
    ],
)
def test_a_bad_argument_is_named_in_one_sentence(kwargs, sentence):
    with pytest.raises(ValueError) as error:
        make_rooms(**kwargs)
    assert str(error.value) == sentence


def test_a_batch_needs_a_copy():
    with pytest.raises(ValueError, match="num_envs is 0; give a whole number of at least 1"):
        BatchedRooms(0)


# --- episodes depend on their seed and actions alone ---------------------------------------------------------------


@settings(max_examples=30)
@given(kwargs=variants, first=seeds, second=seeds, actions=st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_batched_and_single_agree_step_for_step(kwargs, first, second, actions):
    batched, single = BatchedRooms(3, **kwargs), make_rooms(**kwargs)
    many, _ = batched.reset(seed=[second, first, second])
    one, _ = single.reset(seed=first)
    others = np.random.default_rng(0).integers(5, size=(len(actions), 3))
    for action, row in zip(actions, others, strict=True):
        np.testing.assert_array_equal(many[1], one)
        row[1] = action
        many, rewards, terminated, truncated, infos = batched.step(row)
        one, *rest, info = single.step(action)
        assert [rewards[1], terminated[1], truncated[1]] == rest
        assert infos["is_success"][1] == info["is_success"]
        if terminated[1] or truncated[1]:
            break
    np.testing.assert_array_equal(many[1], one)


@settings(max_examples=20)
@given(kwargs=variants, seed=seeds, earlier=st.integers(0, 50))
def test_an_episode_does_not_depend_on_those_before_it(kwargs, seed, earlier):
    fresh, used = BatchedRooms(2, **kwargs), BatchedRooms(2, **kwargs)
    used.reset(seed=earlier)
    actions = np.random.default_rng(earlier).integers(5, size=(earlier + 40, 2))
    for row in actions[:earlier]:
        used.step(row)
    fresh.reset(seed=[seed, seed])
    kept = used.observe()[1]
    restarted, _ = used.reset(seed=[seed, None], options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(restarted[1], kept)
    for row in actions[earlier:]:
        expected, *results = fresh.step(row)
        observed, *others = used.step(row)
        np.testing.assert_array_equal(observed[0], expected[0])
        assert [r[0] for r in others[:3]] == [r[0] for r in results[:3]]


def test_an_empty_reset_mask_changes_nothing():
    env = BatchedRooms(4, rooms=3, keys=1)
    before, _ = env.reset(seed=0)
    after, _ = env.reset(seed=9, options={"reset_mask": np.zeros(4, dtype=bool)})
    np.testing.assert_array_equal(after, before)


def test_seeds_make_different_episodes():
    layouts = lay_out(np.arange(400, dtype=np.uint64), rooms=4, size=5, keys=1, margin=5)
    assert len({cells.tobytes() for cells in layouts.cells}) > 395
    assert len(set(layouts.positions.tolist())) > 50
    assert len(set(layouts.errands[:, -1].tolist())) > 50
    assert np.bincount(layouts.headings, minlength=4).min() > 60


def test_draws_are_uniform_and_independent_of_the_seeds_order():
    draws = SeededDraws(np.arange(20_000, dtype=np.uint64), 3)
    first, second = draws.below(6), draws.below(6, 2)[:, 1]
    pairs = np.bincount(first * 6 + second, minlength=36)
    # 36 cells of 556 each: chi-squared with 35 degrees of freedom exceeds 73 once in ten thousand times.
    assert ((pairs - 20_000 / 36) ** 2 / (20_000 / 36)).sum() < 73
    alone = SeededDraws(np.array([77], dtype=np.uint64), 3)
    assert alone.below(6) == first[77]


# --- layouts ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(kwargs=variants, seed=seeds)
def test_layouts_are_chains_of_rooms_with_a_key_before_each_locked_door(kwargs, seed):
    rooms, keys = kwargs["rooms"], kwargs["keys"]
    layout = lay_out(np.array([seed], dtype=np.uint64), **kwargs, margin=5)
    cells, start = layout.cells[0], int(layout.positions[0])
    flat = cells.reshape(-1)
    counts = np.bincount(flat, minlength=8)
    assert counts[[LOCKED_DOOR, CLOSED_DOOR, KEY, GOAL]].tolist() == [keys, rooms - 1 - keys, keys, 1]
    assert flat[start] == FLOOR and 0 <= layout.headings[0] < 4
    border = np.ones_like(cells, dtype=bool)
    border[6:-6, 6:-6] = False
    assert (cells[border] == WALL).all()

    goal = int(layout.errands[0, -1])
    doors = (CLOSED_DOOR, LOCKED_DOOR)
    free = np.flatnonzero((flat != WALL) & (flat != CLOSED_DOOR) & (flat != LOCKED_DOOR))
    found = {frozenset(room_around(cells, int(cell), (WALL, *doors))) for cell in free}
    assert len(found) == rooms
    for room in found:
        height, width = (len(set(part)) for part in np.divmod(list(room), cells.shape[1]))
        assert len(room) == height * width  # rooms are rectangles
        assert max(3, kwargs["size"] - 2) <= min(height, width) and max(height, width) <= kwargs["size"]
    # Shut any door, and the goal is out of reach: the rooms form a chain, not a ring.
    for door in np.flatnonzero((flat == CLOSED_DOOR) | (flat == LOCKED_DOOR)):
        blocked = cells.copy()
        blocked.reshape(-1)[door] = WALL
        assert goal not in room_around(blocked, start, (WALL,))
    for number in range(keys):
        key, door = layout.errands[0, 2 * number : 2 * number + 2].tolist()
        assert flat[key] == KEY and flat[door] == LOCKED_DOOR
        reached = room_around(cells, start, (WALL, LOCKED_DOOR))
        assert [cell for cell in reached if flat[cell] == KEY] == [key]
        cells = cells.copy()
        flat = cells.reshape(-1)
        flat[key], flat[door] = FLOOR, OPEN_DOOR


@pytest.mark.parametrize(("rooms", "count"), [(2, 4), (3, 12), (4, 36), (5, 100), (8, 2172), (10, 16268)])
def test_there_are_as_many_walks_as_counted_in_the_literature(rooms, count):
    # https://oeis.org/A001411
    walks = self_avoiding_walks(rooms)
    assert walks.shape == (count, 2, rooms) and (walks.min(axis=2) == 0).all()
    assert (abs(np.diff(walks, axis=2)).sum(axis=1) == 1).all()


# --- rules -----------------------------------------------------------------------------------------------------------


def test_a_locked_door_opens_to_a_key_alone_and_uses_it_up():
    env = corridor([LOCKED_DOOR])
    row = env.cells[0, env.side // 2, env.side // 2 :]
    one_step(env, TOGGLE)
    one_step(env, FORWARD)
    assert row[1] == LOCKED_DOOR and env.positions[0] == (env.side // 2) * (env.side + 1)
    env.carrying[:] = 1
    observation, *_ = one_step(env, TOGGLE)
    assert row[1] == OPEN_DOOR and env.carrying[0] == 0 and observation[0, -1] == 0
    one_step(env, FORWARD)
    assert env.positions[0] == (env.side // 2) * (env.side + 1) + 1


def test_a_key_bars_the_way_until_it_is_picked_up_and_one_hand_holds_one_key():
    env = corridor([KEY, KEY])
    start = int(env.positions[0])
    one_step(env, FORWARD)
    assert env.positions[0] == start
    observation, *_ = one_step(env, PICK_UP)
    assert env.carrying[0] == 1 and observation[0, -1] == 1
    one_step(env, FORWARD)
    assert env.positions[0] == start + 1
    one_step(env, PICK_UP)
    assert env.cells.reshape(-1)[start + 2] == KEY


def test_a_door_must_be_opened_and_can_be_shut():
    env = corridor([CLOSED_DOOR])
    start, door = int(env.positions[0]), env.cells[0].reshape(-1)[int(env.positions[0]) + 1 :]
    one_step(env, FORWARD)
    assert env.positions[0] == start
    for expected in (OPEN_DOOR, CLOSED_DOOR, OPEN_DOOR):
        one_step(env, TOGGLE)
        assert door[0] == expected
    one_step(env, FORWARD)
    assert env.positions[0] == start + 1


def test_turns_go_round_and_walls_stop_the_agent():
    env = corridor([WALL])
    start = int(env.positions[0])
    one_step(env, FORWARD)
    assert env.positions[0] == start
    one_step(env, TURN_RIGHT)
    one_step(env, FORWARD)
    assert env.positions[0] == start + env.side
    for _ in range(2):
        one_step(env, TURN_LEFT)
    one_step(env, FORWARD)
    assert env.positions[0] == start
    assert env.headings[0] == 3


def test_the_reward_is_paid_at_the_goal_alone_and_falls_with_time():
    env = corridor([FLOOR, GOAL], max_steps=20)
    for _ in range(3):
        _, rewards, terminated, truncated, infos = one_step(env, FORWARD if env.steps[0] < 1 else TOGGLE)
        assert not (rewards[0] or terminated[0] or truncated[0] or infos["is_success"][0])
    _, rewards, terminated, truncated, infos = one_step(env, FORWARD)
    assert rewards[0] == pytest.approx(1 - 0.9 * 4 / 20)
    assert terminated[0] and not truncated[0] and infos["is_success"][0]
    assert infos["is_success"].dtype == np.bool_ and infos["is_success"].shape == (1,)


@pytest.mark.parametrize(
    ("kwargs", "limit"), [({}, 60), ({"rooms": 4, "keys": 2, "size": 7}, 252), ({"max_steps": 7}, 7)]
)
def test_time_runs_out_after_max_steps(kwargs, limit):
    steps = play(make_rooms(**kwargs), lambda observation: TURN_LEFT, 3)
    assert len(steps) == limit
    assert not steps[-1][3] and steps[-1][4] and not steps[-1][5]["is_success"]
    assert sum(step[2] for step in steps) == 0


def test_the_goal_in_the_last_step_counts_and_is_no_truncation():
    env = corridor([GOAL], max_steps=1)
    _, rewards, terminated, truncated, _ = one_step(env, FORWARD)
    assert terminated[0] and not truncated[0] and rewards[0] == pytest.approx(0.1)


# --- the view --------------------------------------------------------------------------------------------------------


def test_the_view_is_in_front_and_turns_with_the_agent():
    env = corridor([FLOOR, KEY])
    env.cells.reshape(-1)[env.positions[0] + env.side] = GOAL  # to its right
    seen = env.view()[0]
    assert seen[2, 3] == KEY and seen[0, 4] == GOAL and seen[3].tolist() == [FLOOR] * VIEW
    one_step(env, TURN_RIGHT)
    seen = env.view()[0]
    assert seen[1, 3] == GOAL and seen[0, 1] == KEY and (seen == KEY).sum() == 1
    one_step(env, TURN_RIGHT)
    assert KEY not in env.view()


@pytest.mark.parametrize("barrier", [WALL, CLOSED_DOOR, LOCKED_DOOR])
def test_walls_and_shut_doors_hide_what_is_behind_them(barrier):
    env = corridor([FLOOR])
    row, column = env.side // 2, env.side // 2 + 2
    env.cells[0, :, column] = WALL
    env.cells[0, row, column] = barrier
    seen = env.view()[0]
    assert seen[2].tolist() == [WALL, WALL, WALL, barrier, WALL, WALL, WALL]
    assert (seen[3:] == UNSEEN).all()
    env.cells[0, row, column] = OPEN_DOOR
    assert env.view()[0][3, 2:5].tolist() == [FLOOR] * 3


def test_what_is_visible_is_what_minigrid_shows():
    world = pytest.importorskip("minigrid.core.grid")
    objects = pytest.importorskip("minigrid.core.world_object")
    env = BatchedRooms(200, rooms=4)
    env.reset(seed=0)
    for actions in np.random.default_rng(0).choice([0, 1, 2, 4], size=(30, 200)):
        env.step(actions)
    cells = cells_ahead(env)
    for copy, seen in enumerate(env.view() != UNSEEN):
        grid = world.Grid(VIEW, VIEW)
        for ahead, aside in np.argwhere((cells[copy] == WALL) | (cells[copy] == CLOSED_DOOR)).tolist():
            grid.set(aside, VIEW - 1 - ahead, objects.Wall())
        np.testing.assert_array_equal(seen, grid.process_vis((VIEW // 2, VIEW - 1)).T[::-1])


@settings(max_examples=20)
@given(kwargs=variants, seed=st.integers(0, 2**32))
def test_observations_are_one_hots_of_part_of_the_grid(kwargs, seed):
    env = BatchedRooms(8, **kwargs)
    observations, _ = env.reset(seed=seed)
    for actions in np.random.default_rng(seed).integers(5, size=(20, 8)):
        assert env.observation_space.contains(observations)
        channels = observations[:, :-1].reshape(8, VIEW, VIEW, 8)
        seen = env.view()
        np.testing.assert_array_equal(channels.sum(axis=3), 1)
        np.testing.assert_array_equal(channels.argmax(axis=3), seen)
        np.testing.assert_array_equal(observations[:, -1], env.carrying)
        np.testing.assert_array_equal(seen, np.where(seen != UNSEEN, cells_ahead(env), UNSEEN))
        observations, *_ = env.step(actions)


def test_observations_do_not_tell_the_layout():
    env = BatchedRooms(300, rooms=4)
    observations, _ = env.reset(seed=0)
    assert (env.view() == GOAL).any(axis=(1, 2)).mean() < 0.05
    assert (env.view() == UNSEEN).mean() > 0.3
    assert len({observation.tobytes() for observation in observations}) < 250


# --- the expert ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_the_expert_solves_every_episode(kwargs):
    env = make_rooms(**kwargs)
    act = plan_rooms(env)
    steps = [play(env, act, seed) for seed in range(40)]
    assert all(episode[-1][5]["is_success"] for episode in steps)


@settings(max_examples=40)
@given(kwargs=variants, seed=seeds)
def test_every_layout_can_be_solved_in_the_default_time(kwargs, seed):
    env = make_rooms(**kwargs)
    assert play(env, plan_rooms(env), seed)[-1][5]["is_success"]


@settings(max_examples=15)
@given(kwargs=variants, seed=seeds, detour=st.lists(st.integers(0, 4), max_size=80))
def test_the_expert_finds_its_way_from_anywhere(kwargs, seed, detour):
    env = gym.make("rlstages_envs:rlstages/Rooms-v0", **kwargs, max_steps=1000)
    act = plan_rooms(env)
    observation, _ = env.reset(seed=seed + 1 if seed < 2**63 else seed - 1)
    act(observation)
    env.reset(seed=seed)
    terminated = False
    for action in detour:
        terminated = terminated or env.step(action)[2]
    while not terminated:
        observation, _, terminated, truncated, _ = env.step(act(observation))
        assert not truncated


@pytest.mark.parametrize("seed", range(5))
def test_the_expert_takes_a_shortest_way(seed):
    env = make_rooms(rooms=2, size=4)
    length = len(play(env, plan_rooms(env), seed))
    copies = BatchedRooms(4096, rooms=2, size=4)
    for batch in range(3):
        copies.reset(seed=[seed] * 4096)
        actions = np.random.default_rng(batch).choice([0, 1, 2, 2, 4], size=(length - 1, 4096))
        assert not any(copies.step(row)[2].any() for row in actions)
