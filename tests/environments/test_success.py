"""What counts as solved: truth values only, at the end or at any step, and a key that may be missing."""

import re

import numpy as np
import pytest
import torch
from building import curriculum, payloads, tuning
from gymnasium import vector
from refusing import refused
from toys import Corridor

from rlstages import BatchedEnv, Environment, Expert, train
from rlstages.environments.determinism import doubts_about
from rlstages.environments.make import make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.reports import FIRST, EnvironmentFault
from rlstages.environments.success import is_true, success_rule, truth
from rlstages.events import Warned
from rlstages.play.experts import showing
from rlstages.play.recording import record
from rlstages.specs.criteria.episodes import Episode, score

HERE = __name__
FORMS = ["in-process", "subprocess", "batched"]


class Odd:
    """Whatever is asked of it, it fails."""

    def __array__(self, *args, **kwargs):
        raise ZeroDivisionError

    __repr__ = __array__


class Touch(Corridor):
    """Walks five steps to the right or to the left; the flag is up in the third step only, if it walks right."""

    def __init__(self, told="flag"):
        self.told = told

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.right = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        observation, _, _, ended, _ = super().step(action)
        self.right += int(action)
        value = {
            "flag": self.place == 3 and self.time == 3,
            "share": self.right / 5,
            "array": np.array([self.right > 2]),
            "numpy": np.bool_(self.place == 3),
            "list": [self.place == 3],
        }
        return observation, 1.0, False, ended, {"touched": value[self.told]} if self.told in value else {}


class TouchInBatches(BatchedEnv):
    single_observation_space, single_action_space = Touch.observation_space, Touch.action_space

    def __init__(self, num_envs):
        self.place, self.time = np.zeros(num_envs), np.zeros(num_envs)
        super().__init__(num_envs)

    def start(self, copies, seeds):
        self.place[copies] = self.time[copies] = 0

    def advance(self, actions):
        self.place += 2 * actions - 1
        self.time += 1
        told = (self.place == 3) & (self.time == 3)
        return np.ones(self.num_envs), np.zeros(self.num_envs, bool), self.time >= 5, {"touched": told}

    def observe(self, copies=slice(None)):
        return (self.place[copies] / 10).astype(np.float32)[:, None]


def gymnasiums(num_envs, told, mode):
    makers = [lambda: Touch(told)] * num_envs
    return vector.SyncVectorEnv(makers, copy=False, autoreset_mode=vector.AutoresetMode(mode))


def right_and_back(env):
    left = [1, 1, 1, 0, 0]
    return lambda observation: left.pop(0)


def touch(form="in-process", told="flag", **settings):
    if form == "batched":
        return Environment(f"{HERE}:TouchInBatches", success="touched", **settings)
    return Environment(f"{HERE}:Touch", told=told, success="touched", vectorize=form, **settings)


def played(environment, steps, notes=None):
    """One copy that goes right, and one that goes left."""
    env = make_vec_env(environment, 2, 0, 0, warn=(notes if notes is not None else []).append)
    try:
        env.reset()
        for _ in range(steps):
            env.step(np.array([1, 0]))
        return monitor_of(env).take(), monitor_of(env).state_dict()
    finally:
        env.close()


@pytest.mark.parametrize(
    "value",
    [True, False, 1, 0, 1.0, np.float32(0), np.bool_(True), [1], np.array([True]), np.array(0)]
    + [np.array([np.True_], object), torch.tensor([True]), torch.tensor(1.0, requires_grad=True)],
)
def test_truth_values_are_booleans_and_0_and_1_also_by_themselves_in_an_array(value):
    assert truth("it", value) is bool(value[0] if isinstance(value, list) else value)


@pytest.mark.parametrize("value", [0.3, -1, 2, "False", "", None, [], ["task"], [True, False], np.nan, np.zeros(2), {}])
def test_anything_else_is_refused_and_shown(value):
    with pytest.raises(ValueError, match=re.escape(repr(value)[:20])):
        truth("it", value)


def test_what_cannot_even_be_shown_is_refused():
    with pytest.raises(ValueError, match="a Odd"):
        truth("it", Odd())
    assert not is_true(Odd())


def test_a_number_is_a_return_that_must_be_reached_rounding_aside():
    solved = success_rule(1.0)

    assert solved({}, 1.0, 1) and solved({}, sum([0.1] * 10), 10) and solved({}, 2.0, 1)
    assert not solved({}, 0.999, 1)
    assert success_rule(-200.0)({}, -200.0, 1) and not success_rule(0.0)({}, -0.001, 1)


@pytest.mark.parametrize("form", FORMS)
def test_an_episode_may_be_solved_in_any_of_its_steps(form):
    notes = []
    episodes, _ = played(touch(form, success_at="any"), 10, notes)

    assert [(e.copy, e.success) for e in episodes] == [(0, True), (1, False)] * 2
    assert notes == []


@pytest.mark.parametrize("form", FORMS)
def test_where_the_last_step_decides_it_is_told_once_that_the_flag_was_up_before(form):
    notes = []
    episodes, _ = played(touch(form), 20, notes)

    assert not any(episode.success for episode in episodes) and len(episodes) == 8
    (note,) = notes
    assert 'success_at="any"' in note and "info['touched']" in note and FIRST in note


@pytest.mark.skipif(not hasattr(vector, "AutoresetMode"), reason="gymnasium 0.29's batches have no such modes")
@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
@pytest.mark.parametrize("told", ["numpy", "list"])
def test_in_gymnasiums_batches_which_keep_such_flags_as_objects_too(told, mode):
    notes = []
    episodes, _ = played(Environment(f"{HERE}:gymnasiums", success="touched", told=told, mode=mode), 12, notes)

    assert len(episodes) == 4 and not any(episode.success for episode in episodes)
    assert len(notes) == 1 and 'success_at="any"' in notes[0]


def test_the_checks_before_a_run_say_it_once(caplog):
    doubts_about(touch())

    assert len([said for said in caplog.messages if 'success_at="any"' in said]) <= 1


def test_what_is_found_before_a_run_and_again_in_it_is_told_once(here, caplog):
    train(curriculum(tuning(environment=touch(), max_steps=700, on_timeout="advance")), out="run")

    said = [warned.message for warned in payloads(here / "run", Warned)] + caplog.messages
    assert len([sentence for sentence in said if 'success_at="any"' in sentence]) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_success_in_the_midst_of_an_interrupted_episode_is_kept(form):
    environment = touch(form, success_at="any")
    _, state = played(environment, 4)
    env = make_vec_env(environment, 2, 0, 0)
    try:
        assert monitor_of(env).load_state_dict(state)[1] == []
        env.step(np.array([1, 0]))
        assert [episode.success for episode in monitor_of(env).take()] == [True, False]
    finally:
        env.close()


@pytest.mark.parametrize("form", ["in-process", "subprocess"])
def test_a_share_stops_a_run_with_its_place(form):

    with refused(
        "environment-failed",
        where="Touch(told='share'): copy 0, step 1 of its episode 0",
        name="success",
        kind=EnvironmentFault,
    ):
        played(touch(form, told="share", success_at="any"), 5)


def test_arrays_of_one_truth_value_count():
    assert [episode.success for episode in played(touch(told="array"), 5)[0]] == [True, False]


def test_demonstrations_may_be_solved_in_any_step_and_say_so_where_the_last_one_decides():
    def shown(**settings):
        who = Expert(f"{HERE}:right_and_back", episodes=2)
        return record(touch(**settings), who, showing(who)).episodes

    assert [(e.success, e.solved_before) for e in shown()] == [(False, True)] * 2
    assert [(e.success, e.solved_before) for e in shown(success_at="any")] == [(True, False)] * 2


def test_an_episode_without_the_key_is_not_solved_where_others_have_it_or_where_the_key_was_named():
    episodes, _ = played(touch(told="nothing"), 5)
    unnamed, _ = played(Environment(f"{HERE}:Touch", told="nothing"), 5)

    assert [episode.success for episode in episodes] == [False, False]
    assert [episode.success for episode in unnamed] == [None, None] and score(unnamed).success is None
    assert score([Episode(0, 0, 1.0, 5, True), unnamed[0]]).success == 0.5
