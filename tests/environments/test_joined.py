"""Copies of several environments beside each other are what each would be alone."""

import multiprocessing

import numpy as np
import pytest
from building import echo
from hypothesis import given
from hypothesis import strategies as st
from refusing import refused

from rlstages import Environment
from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.joined import Joined, allot, make_joined, parts_of
from rlstages.environments.make import SeededEpisodes, make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.reports import EnvironmentFault
from rlstages.environments.seeding import Purpose, episode_seed

OWN, OTHER = echo(steps=7), echo(steps=4)
ROOMS = "rlstages_envs:rlstages/Rooms-v0"


@given(rehearsing=st.integers(0, 30), earlier=st.integers(1, 8), more=st.integers(1, 30))
def test_copies_are_dealt_out_in_turn(rehearsing, earlier, more):
    others = [echo(steps=number + 1) for number in range(earlier)]

    (own, copies), *rest = allot(echo(steps=99), others, rehearsing + more, rehearsing)

    assert own == echo(steps=99) and copies == more
    assert [environment for environment, _ in rest] == others[: min(rehearsing, earlier)]
    dealt = [number for _, number in rest]
    assert sum(dealt) == rehearsing and dealt == sorted(dealt, reverse=True)
    assert not dealt or max(dealt) - min(dealt) <= 1


def play(env, steps, seed):
    draw = np.random.default_rng(seed)
    env.action_space.seed(int(draw.integers(2**31)))
    told = []
    for _ in range(steps):
        told.append(env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)])))
    return told


@pytest.mark.parametrize(
    "allotment",
    [
        [(OWN, 3), (OTHER, 2)],
        [(echo(steps=7, vectorize="subprocess"), 2), (OTHER, 1), (echo(steps=3, vectorize="subprocess"), 1)],
        [(echo(steps=7, sees="dict"), 2), (echo(steps=4, sees="dict"), 2)],
        [(echo(steps=7, sees="image"), 2), (echo(steps=4, sees="image"), 1)],
        [(Environment(ROOMS, rooms=3, max_steps=20), 3), (Environment(ROOMS, rooms=2, max_steps=20), 2)],
    ],
    ids=["in-process", "subprocess", "dict", "image", "batched"],
)
def test_joined_copies_do_what_the_parts_do_alone(allotment):
    joined = make_joined(allotment, 7, 2)
    firsts = np.cumsum([0, *(number for _, number in allotment)]).tolist()
    alone = [
        make_vec_env(env, number, 7, 2, first=first) for (env, number), first in zip(allotment, firsts, strict=False)
    ]
    try:
        observations = joined.reset()
        for part, first in zip(alone, firsts, strict=False):
            own = slice(first, first + part.num_envs)
            np.testing.assert_equal(taken(observations, own), part.reset())
        draw = np.random.default_rng(0)
        joined.action_space.seed(int(draw.integers(2**31)))
        for _ in range(50):
            actions = np.stack([joined.action_space.sample() for _ in range(joined.num_envs)])
            observations, rewards, dones, infos = joined.step(actions)
            for part, first in zip(alone, firsts, strict=False):
                own = slice(first, first + part.num_envs)
                seen = part.step(actions[own])
                np.testing.assert_equal((taken(observations, own), rewards[own], dones[own], infos[own]), seen)
        for joined_part, part in zip(parts_of(joined), alone, strict=True):
            episodes = monitor_of(joined_part).take()
            assert episodes == monitor_of(part).take() != []
    finally:
        for env in (joined, *alone):
            env.close()


def taken(observations, own):
    if isinstance(observations, dict):
        return {key: value[own] for key, value in observations.items()}
    return observations[own]


def test_no_two_copies_play_the_same_episodes():
    workers = [(echo(steps=steps, vectorize="subprocess"), copies) for steps, copies in ((7, 2), (4, 2), (3, 1))]
    joined = make_joined(workers, 0, 0)
    try:
        joined.reset()

        assert len(set(joined.get_attr("seed"))) == 5
    finally:
        joined.close()


def test_batched_parts_stay_batched():
    joined = make_joined([(Environment(ROOMS, rooms=3), 3), (Environment(ROOMS, rooms=2), 2)], 0, 0)

    assert isinstance(joined, Joined)
    assert all(isinstance(monitor_of(part).venv, BatchedVecEnv) for part in joined.parts)
    joined.close()


def test_one_environment_is_not_joined():
    env = make_joined([(OWN, 3)], 0, 0)

    assert not isinstance(env, Joined) and parts_of(env) == [env]


@pytest.mark.parametrize("form", ["in-process", "subprocess"])
def test_a_fault_names_the_environment_that_it_is_in_and_its_copy(form):
    # The first episode of the fourth copy in all, which is the second of its environment.
    seed = episode_seed(0, 0, Purpose.TRAINING, 3, 0)
    faulty = echo(steps=4, fault="error", fault_seed=seed, vectorize=form)
    joined = make_joined([(OWN, 2), (faulty, 2)], 0, 0)
    joined.reset()
    try:
        where = f"{faulty}: copy 1, step 3 of its episode 0"
        with refused("environment-failed", where=where, kind=EnvironmentFault):
            play(joined, 3, seed=0)
    finally:
        joined.close()


def test_each_part_succeeds_by_its_own_rule():
    easy = Environment("toys:Echo", steps=4, success=-1.0)
    joined = make_joined([(Environment("toys:Echo", steps=4, success=99.0), 2), (easy, 2)], 0, 0)
    joined.reset()

    play(joined, 8, seed=0)

    own, other = (monitor_of(part).take() for part in joined.parts)
    assert [episode.success for episode in own] == [False] * 4
    assert [episode.success for episode in other] == [True] * 4


def test_parts_that_were_made_are_closed_when_another_cannot_be():
    before = set(multiprocessing.active_children())
    broken = Environment("toys:fails_when_made")

    with refused("environment-invalid", where="fails_when_made"):
        make_joined([(echo(vectorize="subprocess"), 2), (broken, 1)], 0, 0)

    assert set(multiprocessing.active_children()) <= before


def test_attributes_are_those_of_each_copy():
    workers = [(echo(steps=steps, vectorize="subprocess"), copies) for steps, copies in ((7, 2), (4, 1))]
    joined = make_joined(workers, 0, 0)
    try:
        assert joined.get_attr("steps") == [7, 7, 4]
        assert joined.get_attr("steps", [2]) == [4]
        joined.set_attr("steps", 3, [1])
        assert joined.get_attr("steps") == [7, 3, 4]
        assert joined.env_is_wrapped(SeededEpisodes) == [True] * 3
        assert joined.get_attr("render_mode") == [None] * 3
    finally:
        joined.close()
