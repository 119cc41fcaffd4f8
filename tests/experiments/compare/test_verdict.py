"""What a comparison says, for outcomes that are known."""

import json
from dataclasses import replace

import pytest
from building import mostly_slow
from comparing import placed
from outcomes import STEPS, measured, outcome, score
from refusing import refused

from rlstages import Environment
from rlstages.errors import Fault
from rlstages.experiments.compare.curve import Curve, Mark, Row, write_curve
from rlstages.experiments.compare.directory import run_path
from rlstages.experiments.compare.files import write_csv, write_json
from rlstages.experiments.compare.page import page
from rlstages.experiments.compare.results import read_results
from rlstages.experiments.compare.table import verdict_tables
from rlstages.experiments.compare.verdict import judge

GOOD, FAIR, POOR = ([base + n / 100 for n in range(5)] for base in (0.9, 0.7, 0.1))


def test_an_arm_that_is_above_all_others_wins(tmp_path):
    verdict = judge(outcome(tmp_path, {"staged": GOOD, "scratch": POOR, "clone-only": FAIR}))

    assert (verdict.outcome, verdict.headline) == ("wins", "staged wins.")
    assert "staged 0.92, clone-only 0.72; difference 0.20 [" in verdict.size
    assert "of the way from chance to the expert" in verdict.size
    assert "Beyond luck, staged scores higher than every other arm" in verdict.sureness
    assert "probability 1.00" in verdict.sureness


def test_an_arm_that_is_beaten_is_said_to_be_so_as_plainly(tmp_path):
    verdict = judge(outcome(tmp_path, {"staged": FAIR, "no-curriculum": GOOD, "scratch": POOR}))

    assert verdict.outcome == "loses"
    assert verdict.headline == "staged does not win here: no-curriculum is better."
    assert "staged 0.72, no-curriculum 0.92; difference -0.20 [" in verdict.size
    assert "Beyond luck, staged scores lower than no-curriculum" in verdict.sureness


def test_with_three_seeds_nothing_is_beyond_luck_and_it_says_how_many_are_needed(tmp_path):
    verdict = judge(outcome(tmp_path, {"staged": GOOD[:3], "scratch": POOR[:3], "clone-only": FAIR[:3]}))

    assert (verdict.outcome, verdict.headline) == ("ahead", "staged is ahead, but not beyond luck.")
    assert (
        "With 3 runs an arm could not be told apart from 2 others even if no two runs overlapped: that takes at least "
        "5, so go on with --seeds 0:5." in verdict.sureness
    )
    assert any(caveat.startswith("3 seeds are few") for caveat in verdict.caveats)
    assert any("plain means" in caveat for caveat in verdict.caveats)


def test_an_arm_that_is_behind_within_luck_does_not_win(tmp_path):
    verdict = judge(
        outcome(tmp_path, {"staged": [0.7, 0.8, 0.9, 0.6, 0.7], "no-curriculum": [0.8, 0.7, 0.9, 0.7, 0.8]})
    )

    assert verdict.outcome == "behind"
    assert verdict.headline == "staged does not win here: no-curriculum is ahead, though that may be luck."
    assert "difference -0.03 [" in verdict.size


def test_level_arms_are_called_level(tmp_path):
    verdict = judge(outcome(tmp_path, {"staged": [1.0] * 5, "no-curriculum": [1.0] * 5}))

    assert verdict.outcome == "level"
    assert verdict.headline == "staged does not win here: it is level with no-curriculum."
    assert verdict.size.endswith("; no difference.")


def test_an_arm_whose_mean_is_higher_but_whose_runs_are_not_is_level(tmp_path):
    verdict = judge(outcome(tmp_path, {"staged": [0.9, 0.9, 0.9], "no-curriculum": [0.5, 0.95, 0.95]}))

    assert verdict.outcome == "level"
    assert "difference 0.10 [" in verdict.size
    assert "A run of no-curriculum scores higher than one of staged with probability 0.67" in verdict.sureness


def test_who_is_sooner_is_said_where_final_scores_are_level(tmp_path):
    at = {"staged": 320, "no-curriculum": 1_600}

    verdict = judge(outcome(tmp_path, {"staged": [1.0] * 5, "no-curriculum": [1.0] * 5}, reached_at=at))

    assert verdict.speed == (
        "staged is the first to reach success 0.50: after 320 steps (median; 5 of 5 seeds); next is no-curriculum, "
        "after 1,600 steps (median; 5 of 5 seeds). Beyond luck, staged is there sooner than no-curriculum."
    )


def test_arms_that_are_equally_soon_are_said_to_tie(tmp_path):
    finals, at = {name: [1.0] * 5 for name in ("staged", "scratch", "no-curriculum")}, {"no-curriculum": 1_600}

    assert judge(outcome(tmp_path / "all", finals, reached_at=at)).speed.startswith(
        "staged and scratch tie as the first to reach success 0.50: after 1,024 steps (median; 5 of 5 seeds each); "
        "next is no-curriculum, after 1,600 steps (median; 5 of 5 seeds)."
    )
    finals["scratch"] = [1.0] * 4 + [0.0]
    some = judge(outcome(tmp_path / "some", finals, reached_at={**at, "staged": 1_280}))
    assert "scratch is the first to reach success 0.50: after 1,024 steps" in some.speed
    assert "next is staged, after 1,280 steps" in some.speed and "tie" not in some.speed


def test_with_three_seeds_nobody_is_sooner_beyond_luck(tmp_path):
    at = {"staged": 320, "no-curriculum": 1_600}

    verdict = judge(outcome(tmp_path, {"staged": [1.0] * 3, "no-curriculum": [1.0] * 3}, reached_at=at))

    assert verdict.speed.endswith("None of this is beyond luck.")


def test_who_is_better_is_said_as_the_test_sees_it(tmp_path):
    """14 of 20 runs are above all others, but the quarters that the interquartile mean cuts off hide it."""
    results = outcome(tmp_path, {"staged": [0.51] * 14 + [0.0] * 6, "scratch": [0.5] * 20})

    (contrast,), verdict = results.contrasts, judge(results)
    assert contrast.p < 0.05 and contrast.difference.value < 0
    assert verdict.outcome == "wins"
    assert "Beyond luck, staged scores higher than scratch" in verdict.sureness


def test_what_is_to_be_done_for_more_runs_keeps_those_that_are_there(tmp_path):
    results = outcome(tmp_path, {"staged": GOOD, "scratch": FAIR}, missing=[("scratch", 0), ("scratch", 1)])
    few = replace(results, plan=replace(results.plan, seeds=(15, 16)), contrasts=results.contrasts)
    odd = replace(results, plan=replace(results.plan, seeds=(3, 8)))

    assert "so have the failed ones made again." in _open(results)
    assert "so go on with --seeds 15:19." in _open(few)
    assert "so go on with more --seeds than 3,8." in _open(odd)


CERTAIN = {"entropy": 0.012, "entropy_low": 0.001}


@pytest.mark.parametrize(
    ("found", "words"),
    mostly_slow(
        [
            ([measured("long", **CERTAIN)], ["certain", "'long'", "1.2% of the largest", "leave explore_again on"]),
            (
                [measured("short", **CERTAIN), measured("long", entropy=0.6, entropy_low=0.4)],
                ["explores", "60.0%", "shown"],
            ),
            ([measured("long", **CERTAIN, reason="hardly succeeds")], ["certain", "given back in 5 runs"]),
            ([measured("long", std=0.02)], ["certain", "noise was 0.02"]),
            ([], []),
        ],
        2,
    ),
)
def test_a_clone_that_holds_learning_back_is_named_with_what_it_explored(found, words, tmp_path):
    results = outcome(tmp_path, {"staged": POOR, "scratch": FAIR, "clone-only": POOR}, explored={"staged": found})
    (text,) = judge(results).transfer

    assert text.startswith("Negative transfer: scratch, which copies nothing, scores higher than staged.")
    assert all(word in text for word in words)
    assert json.loads(write_json(tmp_path, results, judge(results)).read_text())["verdict"]["transfer"] == [text]
    assert text.replace("'", "&#39;") in page(results, judge(results)) or text in page(results, judge(results))


@pytest.mark.parametrize("scratch", [GOOD, [0.88, 0.92, 0.92, 0.93, 0.95]])
def test_a_clone_that_is_level_or_better_holds_nothing_back(scratch, tmp_path):
    assert judge(outcome(tmp_path, {"staged": GOOD, "scratch": scratch})).transfer == ()


def test_negative_transfer_within_luck_is_said_to_be_so(tmp_path):
    (text,) = judge(outcome(tmp_path, {"staged": POOR[:3], "scratch": FAIR[:3]})).transfer

    assert "though that may be luck" in text


def test_negative_transfer_is_tested_over_all_arms_that_begin_with_a_clone(tmp_path):
    """Four runs below four others have a p of 2 in 70: below 5 % for one arm, and above it for each of two."""
    arms = {"staged": POOR[:4], "scratch": FAIR[:4]}
    (alone,) = judge(outcome(tmp_path / "one", arms)).transfer
    both = judge(outcome(tmp_path / "two", {**arms, "naive-handover": POOR[:4]})).transfer

    assert "luck" not in alone
    assert ["luck" in text for text in both] == [True, True]


def _open(results):
    """What is said where nothing is beyond luck."""
    undecided = tuple(replace(contrast, p=1.0) for contrast in results.contrasts)
    return judge(replace(results, contrasts=undecided)).sureness


def test_where_no_run_ends_there_is_nothing_to_report(tmp_path):
    with refused("runs-failed", kind=Fault):
        outcome(tmp_path, {"staged": [1.0], "scratch": [1.0]}, missing=[("staged", 0), ("scratch", 0)])


def test_runs_that_never_reach_the_threshold_count_as_such(tmp_path):
    results = outcome(tmp_path, {"staged": [0.9, 0.9, 0.4], "scratch": [0.1, 0.1, 0.1]})

    staged, scratch = results.arms
    assert (staged.steps.reached, staged.steps.runs, staged.steps.median) == (2, 3, 1_024)
    assert (scratch.steps.reached, scratch.steps.median, scratch.steps.mean) == (0, None, STEPS)
    assert "scratch" not in judge(results).speed


def test_a_single_seed_has_neither_interval_nor_test(tmp_path):
    verdict = judge(outcome(tmp_path, {"staged": [0.9], "scratch": [0.1]}))

    assert verdict.outcome == "ahead"
    assert "difference 0.80, " in verdict.size
    assert any("One seed says nothing" in caveat for caveat in verdict.caveats)


def test_a_failed_run_is_left_out_and_named(tmp_path):
    results = outcome(tmp_path, {"staged": GOOD, "scratch": POOR}, missing=[("scratch", 2)])

    assert results.failures == ("scratch, seed 2: ended by SIGKILL",)
    assert results.arms[1].final[0].value == pytest.approx(0.1225, abs=0.01)
    assert "Not finished, and left out of all scores: scratch, seed 2: ended by SIGKILL." in judge(results).caveats


def test_an_arm_without_a_finished_run_is_left_out(tmp_path):
    results = outcome(tmp_path, {"staged": [0.9, 0.9], "scratch": [0.1, 0.1]}, missing=[("staged", 0), ("staged", 1)])

    verdict = judge(results)
    assert verdict.outcome == "none" and "only scratch came to an end" in verdict.headline
    assert verdict.headline in page(results, verdict)


def test_scores_are_normalised_by_chance_and_the_expert(tmp_path):
    results = outcome(tmp_path, {"staged": GOOD, "scratch": POOR})
    low, high = results.baselines[0].ends("success")

    assert low < 0.2 and high == 1.0
    assert results.arms[0].normalized[0].value == pytest.approx((results.arms[0].final[0].value - low) / (high - low))


def test_a_comparison_is_written_as_strict_json_and_as_lines(tmp_path):
    results = outcome(tmp_path, {"staged": GOOD, "scratch": POOR, "clone-only": FAIR})

    text = write_json(tmp_path, results, judge(results)).read_text()
    lines = write_csv(tmp_path, results).read_text().splitlines()

    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["version"] == 1 and found["verdict"]["headline"] == "staged wins."
    assert [arm["name"] for arm in found["arms"]] == ["staged", "scratch", "clone-only"]
    assert lines[0].startswith("arm,seed,steps,why,environment")
    assert sum(",final," in line for line in lines[1:]) == 3 * 5 * 2


def test_the_terminal_shows_the_verdict_and_every_arm(tmp_path):
    from rich.console import Console

    results = outcome(tmp_path, {"staged": GOOD, "scratch": POOR, "clone-only": FAIR})
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(verdict_tables(results, judge(results)))
    told = console.export_text()

    assert told.startswith("staged wins.")
    for words in ("clone-only", "0.92 [0.9", "steps to threshold", "held-out", "probability of improvement"):
        assert words in told


def test_held_out_environments_without_success_are_compared_by_return(tmp_path):
    results = outcome(tmp_path, {"staged": GOOD, "scratch": POOR}, silent=Environment("toys:Silent"))

    staged, scratch = results.arms
    assert results.measures == ("success", "return")
    assert staged.final[1].value == pytest.approx(8 * 0.92 / 2) and scratch.final[1].value < staged.final[1].value
    assert not any("no better than chance" in caveat for caveat in judge(results).caveats)
    assert ">nan" not in page(results, judge(results))


def test_a_difference_of_nothing_is_level(tmp_path):
    close = [0.901, 0.902, 0.9, 0.903, 0.901], [0.9, 0.899, 0.901, 0.902, 0.9]
    verdict = judge(outcome(tmp_path, dict(zip(["staged", "scratch"], close, strict=True))))

    assert verdict.headline == "staged does not win here: it is level with scratch."


def test_an_arm_that_never_came_to_the_last_variant_is_told_of(tmp_path):
    results = outcome(tmp_path, {"staged": GOOD, "scratch": POOR})
    staged = results.arms[0]
    stuck = [replace(run, own_cost=None, marks=run.marks[:1]) for run in staged.runs[:2]]
    short = replace(staged, runs=(*stuck, *staged.runs[2:]))

    caveats = judge(replace(results, arms=(short, *results.arms[1:]))).caveats

    told = "staged never trained in the last variant on 2 of 5 seeds: its 2,000 steps were spent in 'short'; raise"
    assert f"{told} --steps." in caveats
    assert not any("never trained" in caveat for caveat in judge(results).caveats)


def looked(*rows):
    """A run whose looks are of these costs, successes and numbers of changes; the last is the final one."""
    *looks, (cost, success, changes) = rows
    final = Row(cost, "final", (score(success), score(0.0)), STEPS, changes)
    return Curve((*(Row(c, "grid", (score(s), score(0.0)), None, n) for c, s, n in looks), final), (), None)


@pytest.mark.parametrize(
    ("rows", "steps"),
    [
        ([(0, 0.0, 0), (500, 0.9, 1), (1_000, 0.9, 2), (2_000, 0.4, 3)], 500),
        # One policy, seen twice, is one look; so is a score that stands at several points of the grid.
        ([(0, 0.0, 0), (500, 0.9, 1), (1_000, 0.9, 1), (1_500, 0.4, 2), (2_000, 0.4, 3)], None),
        ([(0, 0.0, 0), (500, 0.4, 1), (2_000, 0.9, 2)], None),
        # A run that had points nearer to each other is seen at those of the others.
        ([(0, 0.0, 0), (500, 0.9, 1), (510, 0.4, 2), (600, 0.9, 3), (2_000, 0.4, 4)], 500),
        ([(0, 0.0, 0), (500, 0.9, 1), (510, 0.9, 2), (600, 0.4, 3), (2_000, 0.4, 4)], None),
        # What is not known to be the same policy counts as another.
        ([(0, 0.0, None), (500, 0.9, None), (1_000, 0.9, None), (2_000, 0.4, None)], 500),
    ],
)
def test_the_threshold_is_reached_by_two_policies_in_a_row(rows, steps, tmp_path):
    plan = placed(tmp_path, names=["staged", "scratch"], seeds=[0], steps=STEPS)
    for name in plan.arms:
        path = run_path(tmp_path, name, 0)
        path.mkdir()
        write_curve(path, looked(*rows))

    (run,) = read_results(tmp_path, plan, STEPS, {}).arms[0].runs

    assert (run.spent, run.reached) == ((steps, True) if steps else (STEPS, False))


def test_an_arm_is_at_the_threshold_as_soon_as_its_clone_is(tmp_path):
    """The clone of an arm that is trained further scores what the clone alone does, for the same steps."""
    plan = placed(tmp_path, names=["staged", "clone-only"], seeds=[0], steps=STEPS)
    untrained, cloned = ((score(s), score(0.0)) for s in (0.0, 0.9))
    rows = Row(160, "grid", untrained), Row(160, "stage", cloned)
    ends = {"staged": Row(STEPS, "final", cloned, STEPS), "clone-only": Row(160, "final", cloned)}
    for name, end in ends.items():
        path = run_path(tmp_path, name, 0)
        path.mkdir()
        write_curve(path, Curve((*rows, end), (Mark(160, "clone", "completed"),), None))

    assert [arm.steps.median for arm in read_results(tmp_path, plan, STEPS, {}).arms] == [160, 160]
