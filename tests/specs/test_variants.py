"""The environments of a curriculum, as retention matrices name them."""

from building import HALF, cloning, curriculum, echo, tuning

from rlstages import Environment, RewardThreshold
from rlstages.specs.variants import variants_of

SHORT, LONG, FAR = echo(steps=4), echo(steps=8), echo(steps=32)


def test_each_environment_is_there_once_named_by_the_stage_that_fine_tunes_there():
    plan = curriculum(
        cloning("copy", SHORT), tuning("short", SHORT), tuning("long", LONG), tuning("longer", LONG), held_out=[FAR]
    )

    variants = variants_of(plan)

    assert [(v.name, v.environment, v.index, v.held_out) for v in variants] == [
        ("short", SHORT, 0, False),
        ("long", LONG, 1, False),
        ("Echo(steps=32)", FAR, 2, True),
    ]


def test_an_environment_that_is_only_cloned_in_has_the_name_of_that_stage():
    assert [v.name for v in variants_of(curriculum(cloning("copy", SHORT), tuning("long", LONG)))] == ["copy", "long"]


def test_what_is_measured_is_what_the_stage_asks_for():
    by_return = RewardThreshold(5.0)
    plan = curriculum(cloning("copy", SHORT), tuning("long", LONG, until=by_return), held_out=[FAR])

    assert [v.measure for v in variants_of(plan)] == ["success", "return", "return"]
    both = by_return & HALF, HALF & by_return
    assert [variants_of(curriculum(tuning("long", LONG, until=until)))[0].measure for until in both] == [
        "return",
        "success",
    ]


def test_a_held_out_environment_that_is_trained_in_all_the_same_is_not_shown_twice():
    assert len(variants_of(curriculum(tuning("long", LONG), held_out=[LONG]))) == 1


def test_environments_that_look_the_same_have_names_of_their_own():
    wrapped = Environment("toys:Echo", wrappers=["toys:DoubleReward"], steps=32)
    names = [v.name for v in variants_of(curriculum(tuning("long", LONG), held_out=[FAR, wrapped]))]

    assert names == ["long", "Echo(steps=32)", "Echo(steps=32) (2)"]
