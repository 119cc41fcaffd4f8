"""The test of a share of solved episodes, by its exact distribution: no simulation, no luck."""

import math
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import some

from rlstages.specs.criteria.sequential import POWER, ShareTest

nulls = st.floats(0.2, 0.95)
alphas = st.sampled_from([0.05, 0.04, 0.005, 0.0005])


def planned(null, alpha, most=120, beyond=0.3):
    return ShareTest.plan(null, null + beyond * (1 - null), alpha, most)


def chance_of_passing(test, alpha, share, gives_up=False):
    """Return the probability that a policy with this share ever passes, if it is looked at after every episode."""
    still, passed, goal = np.array([1.0]), 0.0, math.log(1 / alpha)
    for n in range(1, test.episodes + 1):
        still = np.append(still * (1 - share), 0.0) + np.append(0.0, still * share)
        # Evidence rises with the episodes solved, and so does hope.
        met = bisect_left(range(n + 1), goal, key=lambda solved, n=n: test.evidence(solved, n - solved, test.null))
        passed += float(still[met:].sum())
        still[met:] = 0.0
        if gives_up:
            hope = bisect_left(range(n + 1), 1, key=lambda solved, n=n: not test.is_futile(solved, n - solved))
            still[:hope] = 0.0
    return passed


@some
@given(nulls, alphas, st.floats(0.05, 0.5))
def test_looking_after_every_episode_errs_no_more_often_than_promised(null, alpha, beyond):
    test = planned(null, alpha, most=60, beyond=beyond)
    assert chance_of_passing(test, alpha, null) <= alpha * (1 + 1e-9)
    assert chance_of_passing(test, alpha, 0.9 * null) <= alpha * (1 + 1e-9)


@pytest.mark.parametrize("null, alternative", [(0.85, 0.92), (0.9, 0.97), (0.55, 0.62)])
def test_a_policy_it_was_planned_for_passes(null, alternative):
    test = ShareTest.plan(null, alternative, 0.04, 600)
    assert test.episodes < 600
    assert chance_of_passing(test, 0.04, alternative) >= POWER
    assert chance_of_passing(test, 0.04, alternative, gives_up=True) >= POWER - 0.06
    assert 0.01 < chance_of_passing(test, 0.04, null) <= 0.04


@some
@given(nulls, alphas)
def test_it_takes_no_more_episodes_than_it_may(null, alpha):
    test = planned(null, alpha, most=25)
    assert 1 <= test.episodes <= 25 and test.alternative > test.null
    longer = planned(null, alpha, most=400)
    assert longer.episodes >= test.episodes


@some
@given(nulls, st.integers(0, 40), st.integers(0, 40), st.floats(0.05, 0.99), st.floats(0.05, 0.99))
def test_evidence_falls_as_what_is_tested_rises(null, solved, failed, one, two):
    test = planned(null, 0.04)
    low, high = sorted([one, two])
    strong = test.evidence(solved, failed, high)
    if strong >= math.log(1 / 0.04):
        assert test.evidence(solved, failed, low) >= strong - 1e-9


def test_a_shorter_plan_is_made_where_less_is_to_be_told_apart():
    far, near = ShareTest.plan(0.5, 0.9, 0.04, 600), ShareTest.plan(0.5, 0.6, 0.04, 600)
    assert far.episodes < near.episodes / 4
