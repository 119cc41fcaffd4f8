import math

import pytest
from scipy import stats

from rlstages.specs.criteria.episodes import Episode, score, wilson_interval


def episodes(returns, success=None):
    solved = success or [None] * len(returns)
    return [Episode(0, i, r, 10, s) for i, (r, s) in enumerate(zip(returns, solved, strict=True))]


def test_the_return_has_students_interval():
    result = score(episodes([1.0, 2.0, 3.0, 6.0]))
    low, high = stats.t.interval(0.95, 3, loc=3.0, scale=stats.sem([1.0, 2.0, 3.0, 6.0]))
    assert (result.mean_return, result.episodes, result.steps) == (3.0, 4, 40)
    assert result.return_low == pytest.approx(low) and result.return_high == pytest.approx(high)


def test_success_has_wilsons_interval_which_stays_within_0_and_1():
    all_solved = score(episodes([1.0] * 50, [True] * 50))
    assert all_solved.success == 1.0 and all_solved.success_high == pytest.approx(1.0)
    assert all_solved.success_low == pytest.approx(50 / (50 + 1.959964**2), abs=1e-4)
    assert score(episodes([1.0] * 4, [True, False] * 2)).success == 0.5


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("solved", "n"), [(0, 1), (1, 1), (0, 7), (3, 7), (99, 100), (5, 10_000)])
def test_wilsons_interval_is_scipys(solved, n, confidence):
    expected = stats.binomtest(solved, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(solved, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_success_is_unknown_when_no_episode_says_and_else_those_that_do_not_have_failed():
    result = score(episodes([1.0, 2.0], [None, None]))
    assert (result.success, result.success_low, result.success_high) == (None, None, None)
    assert score(episodes([1.0, 2.0], [True, None])).success == 0.5


def test_one_episode_has_an_interval_of_no_width_and_no_nan():
    result = score(episodes([5.0], [False]))
    assert (result.return_low, result.return_high) == (5.0, 5.0)
    assert not any(isinstance(v, float) and math.isnan(v) for v in vars(result).values())


def test_no_episodes_have_no_score():
    with pytest.raises(ValueError, match="at least one episode"):
        score([])


def test_a_score_reads_as_a_line():
    assert str(score(episodes([2.0, 2.0]))) == "return 2 [2, 2] over 2 episodes"
    assert str(score(episodes([2.0, 2.0], [True, True]))).startswith("success 1.00 [0.34, 1.00], return 2 [2, 2]")
