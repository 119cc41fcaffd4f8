"""Wrappers whose running statistics would part demonstrations, training and evaluation."""

import gymnasium as gym
import pytest
from building import curriculum, tuning
from refusing import refused

from rlstages import Environment, RewardThreshold
from rlstages.cli.demonstrating import record_demonstrations
from rlstages.environments.statistics import RunningStatistics
from rlstages.training.preflight import preflight

WALK = Environment("toys:Walk")
OBSERVATIONS, REWARDS = "gymnasium.wrappers:NormalizeObservation", "gymnasium.wrappers:NormalizeReward"


def checked(environment, **more):
    return preflight(curriculum(tuning(environment=environment, until=RewardThreshold(5.0)), **more)).doubts


def wrapped(*wrappers):
    return Environment("toys:Walk", wrappers=wrappers)


@pytest.mark.parametrize(
    ("environment", "wrapper", "setting"),
    [
        (wrapped(OBSERVATIONS), "NormalizeObservation", "normalize_observations"),
        (wrapped(REWARDS), "NormalizeReward", "normalize_rewards"),
        (wrapped(OBSERVATIONS, "toys:DoubleReward"), "NormalizeObservation", "normalize_observations"),
        (Environment("toys:standardized"), "NormalizeObservation", "normalize_observations"),
        (Environment("toys:standardized", vectorize="subprocess"), "NormalizeObservation", "normalize_observations"),
        (wrapped("toys:Scaled"), "Scaled", "normalize_rewards"),
        (Environment("toys:scaled_batch"), "Scaled", "normalize_rewards"),
    ],
    ids=str,
)
def test_a_wrapper_with_running_statistics_is_refused_with_the_setting_to_use(environment, wrapper, setting):
    with refused("environment-invalid", name="wrappers"):
        checked(environment)


def test_batches_of_gymnasium_are_looked_through():
    vector = pytest.importorskip("gymnasium.wrappers.vector")
    env = vector.NormalizeObservation(gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")]))

    assert RunningStatistics(env)


def test_held_out_environments_and_those_that_are_recorded_are_looked_at(here):
    with refused("environment-invalid", where="held_out: Walk", name="wrappers"):
        checked(WALK, held_out=[wrapped(REWARDS)])
    with refused("environment-invalid", where="standardized", name="wrappers"):
        record_demonstrations("toys:standardized", "toys:any_move", here / "a.safetensors", 2, 0, {}, False)
    assert not (here / "a.safetensors").exists()


@pytest.mark.parametrize(
    "environment",
    [
        Environment("toys:scaled_by_a_constant"),
        wrapped("toys:Counting"),
        wrapped("gymnasium.wrappers:RecordEpisodeStatistics"),
    ],
    ids=str,
)
def test_fixed_statistics_and_those_for_a_person_are_no_matter(environment):
    assert checked(environment) == ()


def test_gymnasiums_own_statistics_may_be_fixed():
    if not hasattr(gym.wrappers.NormalizeObservation, "update_running_mean"):
        pytest.skip("this gymnasium cannot fix them")
    assert checked(Environment("toys:standardized", fixed=True)) == ()


def test_statistics_by_another_name_are_named_as_the_reason_of_what_leaks():
    (doubt,) = checked(wrapped("toys:Centred"))

    assert "Centred keeps running statistics (seen_mean)" in doubt and "normalize_observations=True" in doubt
