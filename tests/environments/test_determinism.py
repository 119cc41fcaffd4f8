"""Whether an environment can be brought back is found out by trying."""

import numpy as np
import pytest
from building import cloning, curriculum, mostly_slow, tuning

from rlstages import Environment, Expert
from rlstages.cli.demonstrating import record_demonstrations
from rlstages.environments.determinism import doubt_about_seeds, doubts_about
from rlstages.environments.make import make_vec_env
from rlstages.training.preflight import preflight


@pytest.mark.parametrize(
    "environment",
    [
        Environment("CartPole-v1"),
        Environment("Pendulum-v1", vectorize="subprocess"),
        Environment("FrozenLake-v1"),
        Environment("rlstages_envs:rlstages/Rooms-v0", rooms=3, keys=1),
        Environment("rlstages_envs:rlstages/PointMaze-v0", size=4),
        Environment("rlstages_envs:rlstages/PointMaze-v0", size=4, vectorize="in-process"),
        Environment("toys:Echo", sees="dict"),
        Environment("toys:Echo", sees="image"),
        Environment("toys:Walk"),
    ],
    ids=str,
)
def test_environments_that_depend_on_seed_and_actions_alone(environment):
    assert doubts_about(environment) == []


def test_an_environment_into_which_earlier_episodes_leak_is_named(box2d):
    (doubt,) = doubts_about(Environment("BipedalWalkerHardcore-v3"))

    assert doubt.startswith("BipedalWalkerHardcore-v3 cannot be brought back by the seed and actions of an episode (")


@pytest.mark.parametrize("name", ["Drifting", "Unseeded"])
def test_environments_that_depend_on_more_are_named(name):
    assert "came out otherwise" in doubts_about(Environment(f"toys:{name}"))[0]


def test_the_generators_stay_where_they_are():
    before = np.random.get_state()[1].copy()

    doubts_about(Environment("toys:Unseeded"))

    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_an_environment_that_fails_is_not_judged():
    assert doubts_about(Environment("toys:Echo", fault="error")) == []


APART, NO_SEED, LEAKS = "disturb each other", "does not follow its seed", "cannot be brought back by"


@pytest.mark.parametrize(
    ("toy", "in_process", "subprocess"),
    mostly_slow(
        [
            ("Chance", NO_SEED, NO_SEED),
            ("Lucky", LEAKS, LEAKS),
            ("SeededOnce", LEAKS, LEAKS),
            ("Shared", APART, None),
            ("LuckyShared", APART, LEAKS),
            ("ChanceShared", APART, NO_SEED),
        ],
        2,
    ),
)
def test_it_is_said_whether_seeds_copies_or_earlier_episodes_are_the_reason(toy, in_process, subprocess):
    for vectorize, wanted in (("auto", in_process), ("subprocess", subprocess)):
        doubts = doubts_about(Environment(f"toys:{toy}", vectorize=vectorize))

        assert len(doubts) == (wanted is not None)
        assert all(wanted in doubt and toy in doubt for doubt in doubts)
        assert all(("vectorize='subprocess'" in doubt) == (wanted == APART) for doubt in doubts)
        assert all(("the same --seed differ" in doubt) == (wanted == NO_SEED) for doubt in doubts)


def test_an_environment_that_is_only_cloned_in_is_looked_at_for_what_its_recording_depends_on():
    def doubts(toy):
        expert = Expert("toys:any_move", episodes=2)
        stages = (
            cloning(environment=Environment(f"toys:{toy}"), expert=expert),
            tuning(environment=Environment("toys:Walk")),
        )
        return preflight(curriculum(*stages)).doubts

    assert [NO_SEED in doubt for doubt in doubts("Chance")] == [True]
    assert [APART in doubt for doubt in doubts("Shared")] == [True]
    # An interruption never comes in the midst of its episodes.
    assert doubts("SeededOnce") == doubts("Walk") == ()


def recorded(place, toy):
    record_demonstrations(f"toys:{toy}", "toys:any_move", place, 2, 0, {}, False)
    return place.read_bytes()


def test_recording_says_that_the_seed_decides_nothing(here, capsys):
    assert recorded(here / "a.safetensors", "Chance") != recorded(here / "b.safetensors", "Chance")

    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(NO_SEED in line and line.startswith("warning: Chance") for line in said)


@pytest.mark.parametrize("toy", ["Walk", "Lucky", "SeededOnce", "LuckyShared"])
def test_recordings_with_one_seed_are_the_same(here, capsys, toy):
    assert recorded(here / "a.safetensors", toy) == recorded(here / "b.safetensors", toy)
    assert capsys.readouterr().err == ""
    assert doubt_about_seeds(Environment(f"toys:{toy}")) is None


def test_what_fails_when_it_is_played_is_recorded_no_worse_for_it():
    assert doubt_about_seeds(Environment("toys:Echo", fault="error")) is None


def test_workers_draw_from_global_generators_as_their_seeds_say():
    def begun():
        env = make_vec_env(Environment("toys:Lucky", vectorize="subprocess"), 2, 5, 0)
        try:
            return env.reset()[:, 0]
        finally:
            env.close()

    first, again = begun(), begun()
    np.testing.assert_array_equal(first, again)
    assert first[0] != first[1]
