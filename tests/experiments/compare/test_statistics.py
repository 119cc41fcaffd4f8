"""Against known values, against definitions, and for any few runs."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rlstages.experiments.compare.statistics import (
    band,
    difference,
    estimate,
    holm,
    improvement,
    iqm,
    permutation_p,
    profile,
    seeds_needed,
    steps_to,
)

RUNS = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=6)
QUICK = settings(max_examples=8)


def test_the_interquartile_mean_cuts_off_the_outer_quarters():
    assert iqm([1, 2, 3, 4, 5, 6, 7, 100]) == pytest.approx((3 + 4 + 5 + 6) / 4)
    assert iqm([1, 2, 9]) == pytest.approx(4)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(30):
        found = estimate(rng.normal(size=30))
        covered += found.low <= 0.0 <= found.high
    assert covered >= 24


def test_one_run_has_no_interval_and_equal_runs_an_empty_one():
    assert (estimate([2.0]).low, estimate([2.0]).high) == (None, None)
    assert (estimate([2.0, 2.0]).low, estimate([2.0, 2.0]).high) == (2.0, 2.0)


@QUICK
@given(RUNS, RUNS)
def test_a_difference_turns_round_with_its_arms(one, other):
    there, back = difference(one, other), difference(other, one)
    assert there.value == pytest.approx(-back.value, abs=1e-9)
    assert there.low - 1e-9 <= there.value <= there.high + 1e-9


@QUICK
@given(RUNS, RUNS)
def test_the_probability_of_improvement_is_mann_whitneys_u_over_the_pairs(one, other):
    pairs = len(one) * len(other)
    assert improvement(one, other).value == pytest.approx(stats.mannwhitneyu(one, other).statistic / pairs)
    assert improvement(one, other).value + improvement(other, one).value == pytest.approx(1.0)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_the_test_is_exact_when_no_two_runs_overlap(n):
    low, high = list(range(n)), list(range(10, 10 + n))

    assert permutation_p(low, high) == pytest.approx(2 / math.comb(2 * n, n))
    assert permutation_p(low, low) == pytest.approx(1.0)


@QUICK
@given(
    st.lists(st.integers(0, 4).map(float), min_size=3, max_size=3),
    st.lists(st.integers(0, 4).map(float), min_size=3, max_size=3),
)
def test_the_test_agrees_with_going_through_all_permutations(one, other):
    def wins(a, b):
        return sum((x > y) + 0.5 * (x == y) for x in a for y in b) / (len(a) * len(b))

    pool = [*one, *other]
    null = [
        wins([pool[i] for i in chosen], [pool[i] for i in range(6) if i not in chosen])
        for chosen in combinations(range(6), 3)
    ]
    seen = wins(one, other)
    less, greater = (np.mean([sign * v <= sign * seen + 1e-12 for v in null]) for sign in (1, -1))
    assert permutation_p(one, other) == pytest.approx(min(1.0, 2 * min(less, greater)))


def test_the_test_calls_equal_arms_different_no_more_often_than_it_may():
    rng = np.random.default_rng(1)
    found = [permutation_p(rng.normal(size=5), rng.normal(size=5)) < 0.05 for _ in range(80)]
    assert np.mean(found) <= 0.11


def test_holms_correction_of_a_known_case():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_corrected_ps_are_no_smaller_and_keep_their_order(ps):
    corrected = holm(ps)
    assert all(p <= c <= 1.0 for p, c in zip(ps, corrected, strict=True))
    order = np.argsort(ps, kind="stable")
    assert list(np.array(corrected)[order]) == sorted(corrected)


def test_how_many_seeds_can_show_anything():
    assert [seeds_needed(rivals) for rivals in (1, 2, 5)] == [4, 5, 5]
    for rivals in range(1, 8):
        n = seeds_needed(rivals)
        assert rivals * permutation_p(range(n), range(50, 50 + n)) <= 0.05
        assert rivals * 2 / math.comb(2 * n - 2, n - 1) > 0.05


def test_runs_that_never_reach_the_threshold_are_censored_not_dropped():
    half = steps_to([10, 20, 30, 100, 100], [True, True, True, False, False])
    assert (half.reached, half.runs, half.median) == (3, 5, 30)
    assert half.mean == pytest.approx((10 + 20 + 30 + 100 + 100) / 5)
    few = steps_to([10, 100, 100], [True, False, False])
    assert few.median is None and few.mean == pytest.approx(70)
    none = steps_to([100, 100], [False, False])
    assert (none.reached, none.median, none.mean) == (0, None, 100)


def test_kaplan_meier_of_a_run_that_failed_on_the_way():
    """After 20 of 4 runs, 1 is censored: survival is 3/4, then 3/4 * 1/2."""
    found = steps_to([10, 20, 30, 40], [True, False, True, False])

    assert found.median == 30
    assert found.mean == pytest.approx(10 + 20 * 3 / 4 + 10 * 3 / 8)


@QUICK
@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=6))
def test_the_restricted_mean_lies_within_the_run(runs):
    spent, reached = zip(*runs, strict=True)
    found = steps_to(spent, reached)
    assert 0 < found.mean <= max(spent) and found.reached == sum(reached)
    assert found.median is None or found.median in spent


def test_arms_of_which_some_runs_never_arrive_are_told_apart_by_order():
    """Of 20 ways to deal 6 runs out, 2 put them so far apart; where nobody arrives, all are tied."""
    never = math.inf
    assert permutation_p([10.0, 20.0, 30.0], [never] * 3) == pytest.approx(2 / 20)
    assert permutation_p([10.0, 20.0, never], [15.0, never, never]) > 0.5
    assert permutation_p([never] * 3, [never] * 3) == 1.0
    assert permutation_p([10.0], [20.0]) == 1.0


def test_a_band_resamples_whole_runs():
    curves = np.array([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0], [20.0, 21.0, 22.0]])

    middle, low, high = band(curves)

    assert middle.tolist() == [10.0, 11.0, 12.0]
    assert np.allclose(np.diff(low), 1.0) and np.allclose(np.diff(high), 1.0)
    assert band(curves[:1])[1] is None


def test_a_profile_counts_runs_above_each_level():
    assert profile([0.2, 0.5, 0.9], [0.0, 0.2, 0.5, 0.9]) == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
