"""What every batched environment keeps to: single copies are reset, and what was returned is left alone for a while."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlstages.environments.batched_env import SingleEnv
from rlstages_envs.pointmaze import BatchedPointMaze
from rlstages_envs.rooms import BatchedRooms

FAMILIES = [BatchedRooms, BatchedPointMaze]


def sampled(env, seed):
    env.action_space.seed(seed)
    return env.action_space.sample()


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15)
@given(masks=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=12))
def test_a_reset_shows_all_copies_as_they_are(family, masks):
    env = family(5, max_steps=7)
    env.reset(seed=1)
    for number, mask in enumerate(np.array(masks)):
        stepped, *_ = env.step(sampled(env, number))
        before = stepped.copy()
        seen, _ = env.reset(seed=[100 * number + copy for copy in range(5)], options={"reset_mask": mask})
        np.testing.assert_array_equal(seen, env.observe())
        np.testing.assert_array_equal(seen[~mask], before[~mask])
        np.testing.assert_array_equal(stepped, before, "what step returned is left as it was")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_is_taken_by_its_copy_and_drawn_where_there_is_none(family):
    env, other = family(3), family(3)
    first, _ = env.reset(seed=[7, None, 9])
    second, _ = other.reset(seed=7)
    np.testing.assert_array_equal(first[[0, 2]], second[[0, 2]])
    drawn = [env.reset(options={"reset_mask": np.array([False, True, False])})[0][1].tobytes() for _ in range(5)]
    assert len(set(drawn)) > 1
    with pytest.raises(ValueError, match="2 seeds were given for 3 copies"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize("family", FAMILIES)
def test_observations_are_the_callers(family):
    batch, single = family(3), SingleEnv(family(1))
    seen = [batch.reset(seed=3)[0], *(batch.step(sampled(batch, number))[0] for number in range(6))]
    alone = [single.reset(seed=3)[0], *(single.step(sampled(single, number))[0] for number in range(6))]
    for rows in (seen, alone):
        assert not any(np.shares_memory(one, other) for one, other in combinations(rows, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_comes_back_shows_itself(family):
    lived, anew = family(4), family(4)
    lived.reset(seed=2)
    for number in range(9):
        seen, *_ = lived.step(sampled(lived, number))
    np.testing.assert_array_equal(anew.restore(lived.state()), seen)
    # And a reset of some shows the others as they came back.
    mask = np.array([True, False, False, False])
    np.testing.assert_array_equal(anew.reset(seed=5, options={"reset_mask": mask})[0][1:], seen[1:])
