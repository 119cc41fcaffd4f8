"""Which numbers are let pass, and which are found."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlstages.environments.ranges import Ranges

HALF_BOUNDED = spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32))
UNBOUNDED = spaces.Box(-np.inf, np.inf, (2,), np.float32)
WIDE = spaces.Box(-3e38, 3e38, (2,), np.float32)
numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=200)
@given(
    space=st.sampled_from([HALF_BOUNDED, UNBOUNDED, WIDE]),
    values=arrays(np.float32, (3, 2), elements=numbers),
)
def test_all_is_well_or_the_first_number_that_is_not_is_found(space, values):
    ranges = Ranges(space)
    found = list(ranges.observations_outside(values))

    assert ranges.observations_hold(values) == (found == [] or not found[0].fatal)
    if not np.isfinite(values).all():
        assert found[0].fatal and "not finite" in found[0].what
        assert not np.isfinite(values[found[0].copy]).all() and np.isfinite(values[: found[0].copy]).all()
    else:
        far = space is HALF_BOUNDED and bool((np.abs(values[:, 0]) > 2).any())
        assert [finding.fatal for finding in found] == [False] * far


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_found_beside_bounds_and_after_a_warning(number, place):
    ranges = Ranges(HALF_BOUNDED)
    far = np.array([[9, 0], [0, 0]], np.float32)
    (warned,) = ranges.observations_outside(far)
    assert not warned.fatal and (warned.copy, warned.seen) == (0, "9.0")
    assert ranges.observations_hold(far), "said once"

    wrong = np.zeros((2, 2), np.float32)
    wrong[1, place] = number
    (found,) = ranges.observations_outside(wrong)
    assert found.fatal and found.copy == 1


@settings(max_examples=200)
@given(rewards=arrays(np.float32, 4, elements=numbers))
def test_rewards_hold_or_one_is_found(rewards):
    ranges = Ranges(UNBOUNDED)
    fine = bool((np.abs(rewards) <= 1e10).all())
    assert ranges.rewards_hold(rewards) == fine
    if not fine:
        found = ranges.reward_outside(rewards)
        assert found.fatal == (not np.isfinite(rewards).all())
        assert ranges.rewards_hold(rewards) == (not found.fatal), "a huge one is said once"


@pytest.mark.parametrize(
    ("space", "fine", "wrong"),
    [
        (spaces.Discrete(3, start=2), [2, 4], 5),
        (spaces.MultiDiscrete([2, 3]), [[0, 0], [1, 2]], [0, 3]),
        (spaces.MultiBinary(2), [[0, 1]], [0, 2]),
    ],
    ids=str,
)
def test_numbers_that_a_space_of_whole_numbers_does_not_have(space, fine, wrong):
    ranges = Ranges(space)
    assert ranges.observations_hold(np.array(fine))
    (found,) = ranges.observations_outside(np.array([*fine, wrong]))
    assert found.fatal and found.copy == len(fine) and "which its space does not have" in found.what
