import math
from unittest.mock import ANY

import numpy as np
import pytest
from building import mostly_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refused
from strategies import criteria, some

from rlstages import RewardThreshold, SuccessThreshold
from rlstages.errors import Fault
from rlstages.specs.criteria import AllOf, AnyOf, spend
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.criteria.sequential import ALPHA

SOLVED, FAILED = Episode(0, 0, 1.0, 1, True), Episode(0, 0, 0.0, 1, False)
outcomes = st.lists(st.booleans(), max_size=320)
mostly_solved = st.integers(0, 300).flatmap(lambda n: st.permutations([True] * n + [False] * (n // 12)))
returns = st.lists(st.floats(-1e6, 1e6), max_size=60) | st.lists(st.floats(90.0, 110.0), min_size=30, max_size=120)
success = st.builds(SuccessThreshold, st.floats(0.3, 1.0), margin=st.floats(0.01, 0.1))
reward = st.builds(RewardThreshold, st.floats(1.0, 200.0), margin=st.none() | st.floats(0.0, 50.0))


def played(solved):
    return [SOLVED if s else FAILED for s in solved]


def earned(values):
    return [Episode(0, i, float(value), 1, float(value) > 0) for i, value in enumerate(values)]


# --- success ------------------------------------------------------------------------------------------------------


@some
@given(success, outcomes | mostly_solved)
def test_another_success_never_closes_the_gate_nor_lowers_the_bound(criterion, solved):
    before, after = criterion.judge(played(solved)), criterion.judge(played([*solved, True]))
    assert after.met >= before.met
    assert after.bound >= before.bound - 1e-9


@some
@given(outcomes | mostly_solved, st.floats(0.3, 1.0), st.floats(0.0, 0.2))
def test_a_lower_threshold_is_met_whenever_a_higher_one_is(solved, high, less):
    low = max(0.2, high - less)
    assert SuccessThreshold(low).judge(played(solved)).met >= SuccessThreshold(high).judge(played(solved)).met


@some
@given(success, outcomes | mostly_solved)
def test_success_is_met_exactly_when_the_bound_reaches_threshold_minus_margin(criterion, solved):
    verdict = criterion.judge(played(solved))
    null = criterion.threshold - criterion.margin
    if abs(verdict.bound - null) > 1e-9:
        assert verdict.met == (verdict.bound > null)
    assert 0.0 <= verdict.bound <= 1.0
    if solved:
        assert verdict.bound <= verdict.value + 1e-9


@some
@given(success, outcomes | mostly_solved)
def test_the_order_of_episodes_does_not_matter(criterion, solved):
    verdict = criterion.judge(played(solved))
    assert verdict == criterion.judge(played(sorted(solved[: verdict.episodes])))


@some
@given(success, st.sampled_from([0.05, 0.025, 0.001]))
def test_the_fewest_episodes_are_exactly_enough_when_all_succeed(criterion, alpha):
    fewest = criterion.fewest_episodes(alpha)
    if fewest is None:
        assert not criterion.judge([SOLVED] * criterion.max_episodes, alpha).met
        return
    assert criterion.judge([SOLVED] * fewest, alpha).met
    assert not criterion.judge([SOLVED] * (fewest - 1), alpha).met


def test_episodes_that_do_not_say_whether_they_succeeded_do_not_count_as_solved():
    unknown = [Episode(0, i, 1.0, 1, None) for i in range(300)]
    assert SuccessThreshold(0.5).judge(unknown).value == 0.0


def test_only_the_first_max_episodes_are_judged():
    criterion = SuccessThreshold(0.9, max_episodes=40)
    verdict = criterion.judge([FAILED] * 40 + [SOLVED] * 500)
    assert (verdict.episodes, verdict.met, verdict.futile) == (40, False, True)


def test_a_hopeless_policy_is_given_up_early_and_a_good_one_is_not():
    assert SuccessThreshold(0.9).judge([FAILED] * 16).futile
    assert not SuccessThreshold(0.9).judge([SOLVED] * 16).futile


def confirmation(criterion, pool, draw):
    fresh = []
    while True:
        fresh += earned(draw.choice(pool, 16))
        verdict = criterion.judge(fresh, spend(1))
        if verdict.met or verdict.futile:
            return verdict


def test_a_policy_that_is_not_as_good_as_asked_for_is_given_up_long_before_the_last_episode():
    """A stage of CartPole once spent half of its steps, 300 episodes, on a policy at threshold minus margin."""
    draw, criterion = np.random.default_rng(0), RewardThreshold(475.0, worst=0.0)
    short = np.clip(500.0 - 80.0 * draw.exponential(size=4_000), 0.0, 500.0)
    passed, spent = {}, {}
    for mean in (451.0, 475.0):
        pool = 500.0 - (500.0 - short) * (500.0 - mean) / (500.0 - short.mean())
        verdicts = [confirmation(criterion, pool, draw) for _ in range(40)]
        passed[mean], spent[mean] = (
            sum(verdict.met for verdict in verdicts),
            np.mean([verdict.episodes for verdict in verdicts]),
        )

    assert passed[451.0] <= 2 and passed[475.0] >= 36
    assert spent[451.0] < 150


def test_nothing_is_known_before_the_first_episode():
    for criterion in (SuccessThreshold(0.9), RewardThreshold(10)):
        verdict = criterion.judge([])
        assert not verdict.met and not verdict.futile and verdict.episodes == 0
        assert verdict.reason == f"no episode judged yet; at least {verdict.episodes_needed} needed"
        value, threshold = criterion.summary([])
        assert math.isnan(value) and threshold == criterion.threshold


# --- returns ------------------------------------------------------------------------------------------------------


@some
@given(reward, returns)
def test_a_return_is_met_exactly_when_the_bound_reaches_what_is_asked(criterion, values):
    verdict = criterion.judge(earned(values))
    below = criterion.margin
    if below is None:
        below = 0.05 * max(criterion.threshold, np.std(values, ddof=1) if len(values) > 1 else 0.0)
    scale = max([criterion.threshold, *map(abs, values)])
    if values:
        assert verdict.bound <= verdict.value + 1e-9 * scale
    if verdict.met:
        assert len(values) >= criterion.min_episodes
        assert verdict.bound >= criterion.threshold - below - 1e-5 * scale
    elif len(values) >= criterion.min_episodes:
        assert verdict.bound <= criterion.threshold - below + 1e-5 * scale


@some
@given(reward, returns)
def test_a_better_return_in_place_of_one_never_closes_the_gate_unless_it_is_an_outlier(criterion, values):
    criterion = RewardThreshold(criterion.threshold, margin=criterion.margin or 1.0)
    if not values:
        return
    better = [min(values) + (max(values) - min(values)) / 2 if v == min(values) else v for v in values]
    assert criterion.judge(earned(better)).met >= criterion.judge(earned(values)).met


@some
@given(st.floats(1.0, 1000.0), st.lists(st.floats(0.0, 1000.0), min_size=30, max_size=60), st.integers(-8, 8))
def test_the_unit_of_reward_does_not_matter(threshold, values, power):
    unit = 2.0**power
    plain = RewardThreshold(threshold).judge(earned(values))
    scaled = RewardThreshold(threshold * unit).judge(earned([v * unit for v in values]))
    assert (plain.met, plain.futile, plain.episodes_needed) == (scaled.met, scaled.futile, scaled.episodes_needed)
    assert scaled.bound == pytest.approx(plain.bound * unit, rel=1e-4, abs=1e-4 * unit)


def test_constant_returns_open_the_gate_only_above_it_and_only_after_enough_of_them():
    criterion = RewardThreshold(475)
    assert not criterion.judge(earned([500.0] * 29)).met
    assert criterion.judge(earned([500.0] * 64)).met
    for below in (451.0, 400.0, 0.0, -1e9):
        verdict = criterion.judge(earned([below] * 300))
        assert not verdict.met and verdict.futile and verdict.bound <= below


def test_thirty_perfect_episodes_do_not_prove_that_one_in_ten_does_not_fail():
    verdict = RewardThreshold(475).judge(earned([500.0] * 30))
    assert not verdict.met and not verdict.futile
    more = verdict.episodes_needed
    assert RewardThreshold(475).judge(earned([500.0] * (30 + more))).met


def test_a_worse_possible_return_asks_for_more_episodes():
    needed = [RewardThreshold(-93, worst=worst).judge(earned([-80.0] * 30)).episodes_needed for worst in (None, -500)]
    assert needed[0] < needed[1]


def test_an_episode_below_what_was_assumed_is_told():
    """One and a half thresholds below 0.95; where the lowest return is given, nothing is assumed."""
    short, fallen = RewardThreshold(1.0, margin=0.05), earned([2.0] * 40 + [-500.0])
    assert "an episode returned -500, below the -0.55 assumed; set worst=" in short.judge(fallen).reason
    assert "assumed" not in short.judge(fallen[:40]).reason
    assert "assumed" not in RewardThreshold(1.0, worst=-500.0).judge(fallen).reason


def test_of_two_criteria_measure_and_threshold_are_those_of_the_first():
    paid, solved = RewardThreshold(200.0), SuccessThreshold(0.9)
    for both in (paid & solved, paid | solved):
        assert (both.measure, both.summary([])[1], both.needs_success) == ("return", 200.0, True)
    assert (solved & paid).measure == "success"


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_returns_that_are_not_finite_never_open_the_gate(strange):
    with refused("environment-failed", where="RewardThreshold", kind=Fault):
        RewardThreshold(10).judge(earned([1e6] * 100 + [strange]))
    with refused("environment-failed", where="RewardThreshold", kind=Fault):
        RewardThreshold(10).promising(earned([1e6] * 29 + [strange]))


def test_negative_and_huge_thresholds_work():
    assert RewardThreshold(-100).judge(earned([-80.0] * 60)).met
    assert not RewardThreshold(-100).judge(earned([-120.0] * 60)).met
    assert RewardThreshold(1e100).judge(earned([2e100] * 60)).met


def test_with_a_margin_of_nothing_equality_is_never_proven():
    assert not RewardThreshold(10, margin=0).judge(earned([10.0] * 300)).met
    assert RewardThreshold(10, margin=0).judge(earned([11.0] * 300)).met
    assert not RewardThreshold(0, margin=0, worst=-10).judge(earned([0.0] * 300)).met


# --- both kinds ---------------------------------------------------------------------------------------------------


@settings(some, max_examples=60)
@given(criteria, returns)
def test_judging_is_a_pure_function_without_nan(criterion, values):
    episodes = earned(values)
    before = list(episodes)
    one, two = criterion.judge(episodes), criterion.judge(tuple(episodes))
    assert repr(one) == repr(two) and episodes == before
    if values:
        assert not math.isnan(one.value) and not math.isnan(one.bound)
    assert not (one.met and one.futile)
    assert one.episodes_needed is None or one.episodes_needed >= 0
    assert one.reason and "\n" not in one.reason and "nan" not in one.reason


@settings(some, max_examples=60)
@given(criteria, criteria, returns)
def test_both_and_either_follow_from_their_parts(one, two, values):
    episodes = earned(values)
    both, either = (one & two).judge(episodes), (one | two).judge(episodes)
    assert both.met == (one.judge(episodes).met and two.judge(episodes).met)
    assert either.met == (one.judge(episodes, ALPHA / 2).met or two.judge(episodes, ALPHA / 2).met)
    assert both.met <= either.met or not (one.judge(episodes, ALPHA / 2).met or two.judge(episodes, ALPHA / 2).met)
    assert (two & one).judge(episodes).met == both.met
    assert (two | one).judge(episodes).met == either.met
    assert (one & one).judge(episodes).met == one.judge(episodes).met
    assert (one & two).promising(episodes) == (one.promising(episodes) and two.promising(episodes))
    assert (one | two).promising(episodes) == (one.promising(episodes) or two.promising(episodes))


@some
@given(criteria, st.integers(0, 400))
def test_a_window_that_is_not_full_is_not_promising(criterion, n):
    if n < criterion.window and isinstance(criterion, (SuccessThreshold, RewardThreshold)):
        assert not criterion.promising([Episode(0, 0, 1e12, 1, True)] * n)


def test_promising_looks_at_the_newest_episodes():
    criterion = SuccessThreshold(0.9, window=10)
    assert criterion.promising([FAILED] * 50 + [SOLVED] * 10)
    assert not criterion.promising([SOLVED] * 50 + [FAILED] * 2 + [SOLVED] * 8)
    assert criterion.summary([FAILED] * 10 + [SOLVED] * 10) == (1.0, 0.9)


def test_success_or_return_opens_by_either_and_names_what_opened_it():
    either = SuccessThreshold(0.9) | RewardThreshold(10)
    rich_failures = [Episode(0, 0, 20.0, 1, False)] * 100
    poor_successes = [Episode(0, 0, 0.0, 1, True)] * 100
    assert either.judge(rich_failures).met and "return 20" in either.judge(rich_failures).reason
    assert either.judge(poor_successes).met and "success 1.00 over" in either.judge(poor_successes).reason
    assert not either.judge([Episode(0, 0, 0.0, 1, False)] * 100).met
    assert not (SuccessThreshold(0.9) & RewardThreshold(10)).judge(rich_failures).met
    assert isinstance(either, AnyOf) and either.needs_success
    assert either.window == 30 and either.max_episodes == 540
    assert either.fewest_episodes() == 30


def test_criteria_read_as_half_a_sentence():
    criterion = SuccessThreshold(0.9) & RewardThreshold(200)
    assert str(criterion) == "success of at least 0.9 and a mean return of at least 200"
    assert str(criterion | SuccessThreshold(0.5)).endswith("or success of at least 0.5")


def test_the_error_budget_of_all_attempts_adds_up_to_alpha():
    spent = [spend(attempt) for attempt in range(1, 10_001)]
    assert all(share > 0 for share in spent) and sum(spent) <= ALPHA
    assert sum(spent) == pytest.approx(ALPHA, rel=1e-3)
    assert spent == sorted(spent, reverse=True)


@pytest.mark.parametrize("make", [SuccessThreshold, RewardThreshold])
@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf, True, "0.9", None, 10**400, [0.9]])
def test_impossible_thresholds_are_refused(make, threshold):
    with refused(ANY, where=make.__name__, name="threshold"):
        make(threshold)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: SuccessThreshold(0), ("setting-range", "SuccessThreshold", "threshold")),
        (lambda: SuccessThreshold(1.01), ("setting-range", "SuccessThreshold", "threshold")),
        (lambda: SuccessThreshold(90), ("setting-range", "SuccessThreshold", "threshold")),
        (lambda: SuccessThreshold(0.05), ("setting-conflict", "SuccessThreshold", "margin")),
        (lambda: SuccessThreshold(1.0, margin=0), ("setting-conflict", "SuccessThreshold", "margin")),
        (lambda: SuccessThreshold(0.9, margin=0.6), ("setting-range", "SuccessThreshold", "margin")),
        (lambda: SuccessThreshold(0.9, window=0), ("setting-range", "SuccessThreshold", "window")),
        (lambda: SuccessThreshold(0.9, max_episodes=0.5), ("setting-type", "SuccessThreshold", "max_episodes")),
        (lambda: RewardThreshold(1, margin=-1), ("setting-range", "RewardThreshold", "margin")),
        (lambda: RewardThreshold(0), ("setting-missing", "RewardThreshold", "margin")),
        (
            lambda: RewardThreshold(0, margin=1),
            ("setting-conflict", "RewardThreshold", "threshold"),
        ),
        (lambda: RewardThreshold(1, worst=math.nan), ("setting-range", "RewardThreshold", "worst")),
        (lambda: RewardThreshold(1, worst=1), ("setting-conflict", "RewardThreshold", "worst")),
        (lambda: RewardThreshold(1, min_episodes=9), ("setting-range", "RewardThreshold", "min_episodes")),
        (
            lambda: RewardThreshold(1, min_episodes=50, max_episodes=40),
            ("setting-range", "RewardThreshold", "max_episodes"),
        ),
        (lambda: SuccessThreshold(0.9) & 0.9, ("setting-type", "AllOf", "")),
        (lambda: SuccessThreshold(0.9) | None, ("setting-type", "AnyOf", "")),
        (lambda: AllOf("a", SuccessThreshold(0.9)), ("setting-type", "AllOf", "")),
    ],
)
def test_contradictions_are_refused(make, said):
    with refused(*said):
        make()


# --- how often the gate opens: seeded simulations of the whole procedure ------------------------------------------


def share_opened(criterion, draw, policies, episodes, wave=16, seed=0):
    """Play policies through the gate: windows until promising, then waves of fresh episodes, over and over.

    `draw(rng, n)` gives the index of each episode's kind, or its return.
    """
    rng, opened = np.random.default_rng(seed), 0
    for _ in range(policies):
        stream = draw(rng, episodes)
        at = attempt = 0
        while at + criterion.window <= episodes:
            window, at = stream[at : at + criterion.window], at + criterion.window
            if not criterion.promising(window):
                continue
            attempt += 1
            start = at
            while at < episodes:
                at += wave
                verdict = criterion.judge(stream[start:at], spend(attempt))
                if verdict.met or verdict.futile:
                    break
            if verdict.met:
                opened += 1
                break
    return opened / policies


def solving(share):
    def draw(rng, n):
        return [SOLVED if lucky else FAILED for lucky in rng.random(n) < share]

    return draw


def landing_or_crashing(land, crash, share):
    good, bad = Episode(0, 0, land, 1), Episode(0, 0, crash, 1)

    def draw(rng, n):
        return [good if lucky else bad for lucky in rng.random(n) < share]

    return draw


def returning(sample):
    def draw(rng, n):
        return [Episode(0, 0, value, 1) for value in sample(rng, n).tolist()]

    return draw


@pytest.mark.parametrize("threshold", mostly_slow([0.5, 0.8, 0.9, 0.95], 1))
def test_a_policy_just_below_the_gate_opens_it_in_at_most_5_percent(threshold):
    criterion = SuccessThreshold(threshold)
    below = threshold - criterion.margin - 0.001
    assert share_opened(criterion, solving(below), policies=400, episodes=1_000) <= 0.05


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_a_policy_above_the_gate_opens_it(threshold):
    good = solving(threshold + 0.05)
    assert share_opened(SuccessThreshold(threshold), good, policies=60, episodes=1_500) >= 0.95


def test_a_lucky_window_alone_would_open_the_gate_which_is_why_it_is_not_enough():
    criterion = SuccessThreshold(0.9, window=20)
    streams = [solving(0.849)(np.random.default_rng(seed), 1_000) for seed in range(50)]
    lucky = [any(criterion.promising(s[: n + 1]) for n in range(20, 1_000)) for s in streams]
    assert np.mean(lucky) > 0.9


SKEWED = {
    "pole that falls at once in one of ten": (475, landing_or_crashing(500.0, 0.0, (475 * 0.95 - 1) / 500)),
    "pole that falls in one of sixteen": (495, landing_or_crashing(500.0, 0.0, (495 * 0.95 - 1) / 500)),
    "lander that crashes in one of six": (200, landing_or_crashing(250.0, -100.0, (190 - 1 + 100) / 350)),
    "lander that crashes in one of ten": (230, landing_or_crashing(250.0, -100.0, (218.5 - 1 + 100) / 350)),
    "goal in 87 of 100": (0.9, landing_or_crashing(0.98, 0.0, 0.854 / 0.98)),
    "exponential": (10, returning(lambda rng, n: rng.exponential(9.45, n))),
    "negative exponential": (-10, returning(lambda rng, n: -rng.exponential(10.55, n))),
    "normal": (10, returning(lambda rng, n: rng.normal(9.45, 3.0, n))),
    "log-normal": (10, returning(lambda rng, n: rng.lognormal(math.log(9.45) - 0.5, 1.0, n))),
}


@pytest.mark.parametrize("case", mostly_slow(SKEWED, 4))
def test_a_mean_just_below_the_gate_opens_it_in_at_most_5_percent(case):
    threshold, draw = SKEWED[case]
    criterion = RewardThreshold(threshold, max_episodes=112)
    assert share_opened(criterion, draw, policies=100, episodes=600) <= 0.05


def test_a_known_worst_return_keeps_rare_disasters_out():
    rarely = landing_or_crashing(-80.0, -500.0, 1 - (93 * 1.05 + 0.2 - 80) / 420)
    known = RewardThreshold(-93, worst=-500, max_episodes=112)
    assert share_opened(known, rarely, policies=100, episodes=600) <= 0.05


def test_a_mean_above_the_gate_opens_it():
    above = {
        475: landing_or_crashing(500.0, 0.0, 0.99),
        200: returning(lambda rng, n: np.where(rng.random(n) < 0.98, 260.0, -100.0) + rng.normal(0, 20, n)),
        10: returning(lambda rng, n: rng.normal(10.5, 2.0, n)),
        -200: returning(lambda rng, n: rng.normal(-150.0, 80.0, n)),
    }
    for threshold, draw in above.items():
        assert share_opened(RewardThreshold(threshold), draw, policies=20, episodes=1_500) >= 0.9, threshold


def test_success_or_return_together_err_in_at_most_5_percent():
    good, bad = Episode(0, 0, 1.0, 1, True), Episode(0, 0, 0.0, 1, False)
    criterion = SuccessThreshold(0.9) | RewardThreshold(0.9, max_episodes=112)

    def draw(rng, n):
        return [good if lucky else bad for lucky in rng.random(n) < 0.849]

    assert share_opened(criterion, draw, policies=80, episodes=600) <= 0.05


@pytest.mark.slow
def test_two_thousand_policies_just_below_the_gate_open_it_in_at_most_5_percent():
    assert share_opened(SuccessThreshold(0.9), solving(0.849), policies=2_000, episodes=3_000) <= 0.05
    falling = landing_or_crashing(500.0, 0.0, 0.9)
    assert share_opened(RewardThreshold(475), falling, policies=500, episodes=1_500) <= 0.05


def test_a_verdict_says_what_was_seen_and_what_is_asked_for():
    rule = SuccessThreshold(0.9)
    won, lost = Episode(0, 0, 1.0, 5, True), Episode(0, 0, 0.0, 5, False)
    assert rule.judge([won] * 60).reason == (
        "success 1.00 over 60 episodes, at least 0.892 beyond luck; 0.85 is needed (0.90 less the margin)"
    )
    assert rule.judge([lost] * 60).reason.endswith("but 0.85 is needed (0.90 less the margin)")
    assert rule.judge([won] * 5).reason.endswith("more episodes would show it")
