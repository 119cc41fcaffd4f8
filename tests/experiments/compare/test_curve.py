from hypothesis import given
from hypothesis import strategies as st
from refusing import refused

from rlstages.experiments.compare.curve import GRID_POINTS, Curve, Mark, Row, grid_interval, read_curve, write_curve
from rlstages.specs.criteria.episodes import Score


def row(cost, why="grid", value=0.0, steps=None):
    return Row(cost, why, (Score(4, 40, value, value - 1, value + 1),), steps)


def test_a_curve_comes_back_as_it_was_written(tmp_path):
    curve = Curve((row(0), row(90, "final", 3.0, 80)), (Mark(40, "clone", "completed"),), 60)
    write_curve(tmp_path, curve)

    assert read_curve(tmp_path) == curve
    assert read_curve(tmp_path / "nothing") == Curve()


def test_a_damaged_curve_is_refused_in_a_sentence(tmp_path):
    for text in ("{", '{"version": 7}', '{"version": 1, "rows": 3, "marks": [], "own_cost": null}'):
        (tmp_path / "curve.json").write_text(text)
        with refused("file-damaged", where="curve.json"):
            read_curve(tmp_path)


def test_what_demonstrations_teach_counts_once_they_are_paid_for():
    """Recording spends 5,000 steps at once, then cloning spends none."""
    curve = Curve((row(0, value=1.0), row(5_000, value=1.0), row(5_000, "stage", 9.0), row(7_000, value=8.0)))

    values = [curve.at(steps).scores[0].mean_return for steps in (0, 2_000, 4_999, 5_000, 6_000, 7_000)]

    assert values == [1.0, 1.0, 1.0, 9.0, 8.0, 8.0]
    assert curve.at(7_001) is None


def test_final_scores_belong_to_a_number_of_steps():
    curve = Curve((row(80, "final", 1.0, 80), row(160, "final", 2.0, 160)))

    assert curve.final(80).cost == 80 and curve.final(160).cost == 160 and curve.final(100) is None
    level = Curve((row(10, "final", 1.0, None),))
    assert level.final(80) == level.final(160) == level.rows[0]


@given(st.integers(1, 10**9), st.integers(1, 10**5), st.integers(0, 10**9))
def test_the_grid_of_a_longer_run_is_part_of_that_of_a_shorter_one(steps, rollout, more):
    short, long = grid_interval(steps, rollout), grid_interval(steps + more, rollout)
    assert long % short == 0 and short % rollout == 0
    assert steps <= GRID_POINTS * short
    assert short == rollout or steps > GRID_POINTS * short / 2
