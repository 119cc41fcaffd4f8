"""An expert in an environment becomes demonstrations."""

import gymnasium as gym
import numpy as np
import pytest
from building import echo
from gymnasium import spaces
from refusing import refused

from rlstages import Environment, Expert, load_demonstrations
from rlstages.environments.make import make_environment
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.play import recording
from rlstages.play.experts import showing
from rlstages.play.recording import Budget, record, rehearse
from rlstages.play.smoke_check import try_expert


def play(environment, expert, episodes=3, **where):
    who = Expert(expert, episodes=episodes)
    return record(environment, who, showing(who), **where)


def test_episodes_are_recorded_whole():
    shown = play(echo(), "toys:tell")

    assert len(shown) == 3
    for episode in shown.episodes:
        assert episode.observations.shape == (9, 3)
        assert episode.actions.shape == episode.rewards.shape == (8,)
        assert episode.success is True
        np.testing.assert_array_equal(episode.observations[:-1].argmax(axis=1), episode.actions)


def test_episodes_have_the_seeds_of_demonstrations():
    shown = play(echo(), "toys:tell", run_seed=4, stage=2)
    env = make_environment(echo())

    for number, episode in enumerate(shown.episodes):
        first, _ = env.reset(seed=episode_seed(4, 2, Purpose.DEMONSTRATION, 0, number))
        np.testing.assert_array_equal(episode.observations[0], first)


class Masked(gym.Env):
    """Allows one action of three, a different one in each step; ends after three or, with `long`, is cut off."""

    observation_space, action_space = spaces.Box(-9.0, 9.0, (1,)), spaces.Discrete(3)

    def __init__(self, told="info", long=False):
        self.told, self.long = told, long
        if told != "info":
            self.action_masks = self._allowed

    def reset(self, *, seed=None, options=None):
        self.time = 0
        self.place = (options or {}).get("at", 0.0)
        return self._look()

    def step(self, action):
        assert action == self.time % 3
        self.time += 1
        seen, info = self._look()
        return seen, 1.0, not self.long and self.time == 3, self.long and self.time == 4, info

    def _look(self):
        return np.array([self.place], np.float32), {"action_mask": self._allowed()} if self.told == "info" else {}

    def _allowed(self):
        if self.told == "never":
            raise RuntimeError("the rules are missing")
        return np.arange(3) == self.time % 3


def turn(env):
    return lambda observation: env.unwrapped.time % 3


@pytest.mark.parametrize("told", ["info", "method"])
@pytest.mark.parametrize("long", [False, True])
def test_how_episodes_began_and_ended_and_what_was_allowed_is_recorded(told, long, tmp_path):
    environment = Environment(f"{__name__}:Masked", told=told, long=long)
    shown = play(environment, f"{__name__}:turn", level={"at": 2})
    shown.save(tmp_path / "a.safetensors")
    for number, episode in enumerate([*shown.episodes, *load_demonstrations(tmp_path / "a.safetensors").episodes]):
        assert (episode.terminated, episode.truncated) == (not long, long)
        assert episode.seed == episode_seed(0, 0, Purpose.DEMONSTRATION, 0, number % 3)
        assert episode.options == {"at": 2} and set(episode.observations.ravel().tolist()) == {2.0}
        np.testing.assert_array_equal(episode.action_masks.argmax(1), episode.actions)
        assert episode.action_masks.sum() == len(episode) == 3 + long


def test_masks_that_cannot_be_told_are_named():
    with refused("environment-invalid", where="Masked(told='never')"):
        play(Environment(f"{__name__}:Masked", told="never"), f"{__name__}:turn")
    assert play(echo(), "toys:tell").episodes[0].action_masks is None


def test_a_reward_that_is_not_finite_is_refused_with_its_step():
    with refused("environment-invalid", where="Echo(fault='reward')"):
        play(echo(fault="reward"), "toys:tell")


@pytest.mark.parametrize(
    ("sees", "acts", "kind", "shape"),
    [
        ("vector", "box", np.float32, (8, 2)),
        ("vector", "multidiscrete", np.int64, (8, 2)),
        ("vector", "multibinary", np.int8, (8, 2)),
        ("discrete", "discrete", np.int64, (8,)),
        ("image", "discrete", np.int64, (8,)),
        ("dict", "discrete", np.int64, (8,)),
    ],
)
def test_arrays_have_the_spaces_types(sees, acts, kind, shape):
    episode = play(echo(sees=sees, acts=acts), "toys:tell").episodes[0]
    space = make_environment(echo(sees=sees, acts=acts)).observation_space

    assert episode.actions.dtype == kind and episode.actions.shape == shape
    parts = {"": (episode.observations, space)}
    if sees == "dict":
        parts = {key: (episode.observations[key], space[key]) for key in space.spaces}
    for values, part in parts.values():
        assert values.dtype == part.dtype and values.shape == (9, *part.shape)


def test_success_is_what_the_environment_says_it_is():
    assert play(echo(success=100.0), "toys:tell").score().success == 0.0
    assert play(echo(success="nothing"), "toys:tell").score().success is None
    assert play(echo(success="toys:hit_often"), "toys:tell").score().success == 1.0


@pytest.mark.parametrize(
    ("expert", "sentence"),
    [
        (
            "toys:fail_later",
            ("expert-invalid", "toys:fail_later", ""),
        ),
        (
            "toys:fail_to_tell",
            ("expert-invalid", "toys:fail_to_tell", ""),
        ),
        ("toys:no_function", ("expert-invalid", "toys:no_function", "")),
        ("toys:WORD", ("expert-invalid", "toys:WORD", "")),
        ("toys:tel", ("name-unknown", "toys", "tel")),
    ],
)
def test_an_expert_that_fails_is_named(expert, sentence):
    with refused(*sentence):
        play(echo(), expert)


def test_an_episode_that_does_not_end_is_refused(monkeypatch):
    monkeypatch.setattr(recording, "MAX_EPISODE_STEPS", 50)

    with refused("episode-endless", where="Endless"):
        play(Environment("toys:Endless"), "toys:tell_zero")


def test_an_expert_is_made_for_every_episode_after_its_reset():
    shown = play(Environment("toys:Corridor"), "toys:plan_ahead", episodes=12)

    assert shown.score().success == 1.0
    assert {episode.actions[0].item() for episode in shown.episodes} == {0, 1}


@pytest.mark.parametrize(
    ("environment", "expert", "sentence"),
    [
        ("toys:Cars", "toys:steer_hard", ("expert-invalid", "toys:steer_hard", "")),
        ("toys:Cars", "toys:steer_to_nan", ("expert-invalid", "toys:steer_to_nan", "")),
        ("toys:Strict", "toys:wrong_later", ("expert-invalid", "toys:wrong_later", "")),
    ],
)
def test_recording_stops_at_the_first_action_that_is_not_in_the_space(environment, expert, sentence):
    with refused(*sentence):
        play(Environment(environment), expert)
    with refused(*sentence):
        who = Expert(expert)
        try_expert(Environment(environment), who, showing(who))


def test_a_trial_of_an_expert_ends_when_its_budget_is_spent():
    who = Expert("toys:tell", episodes=100)

    assert len(rehearse(echo(), who, showing(who), Budget(20, 60.0))) == 2
    assert len(rehearse(echo(), who, showing(who), Budget(7, 60.0))) == 0
    assert len(rehearse(echo(), who, showing(who), Budget(10_000, 60.0))) == 100
