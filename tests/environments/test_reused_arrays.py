"""Environments and experts that write into arrays they have handed out, or were given: nothing that is kept changes."""

import gymnasium as gym
import numpy as np
import pytest
from building import RESETS_ITSELF, VECTOR_CARTPOLE, mostly_slow
from gymnasium import spaces

from rlstages import BatchedEnv, Environment, Expert
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.play.experts import showing
from rlstages.play.recording import record

HERE = __name__


class Walk(gym.Env):
    """Walks along a line by its action; with `reuse`, each array is made once and written into ever after."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, reuse=False, kind="vector"):
        self.reuse, self.kind = reuse, kind
        self.seen, self.flag = np.zeros(2, np.float32), np.zeros(1)
        vector = spaces.Box(-10.0, 10.0, (2,), np.float32)
        self.observation_space = spaces.Dict({"place": vector}) if kind == "dict" else vector

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = float(self.np_random.uniform(-1, 1)), 0
        self.flag[:] = 0.0
        return self._look(), {"is_success": self.flag if self.reuse else self.flag.copy()}

    def step(self, action):
        self.place += float(action[0])
        if self.reuse:
            action[:] = 0.0
        self.steps += 1
        self.flag[:] = self.steps >= 5
        return self._look(), 1.0, False, self.steps >= 5, {"is_success": self.flag if self.reuse else self.flag.copy()}

    def _look(self):
        self.seen[:] = self.place, self.steps
        seen = self.seen if self.reuse else self.seen.copy()
        return {"place": seen} if self.kind == "dict" else seen


class WalkInBatches(BatchedEnv):
    single_observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    single_action_space = Walk.action_space

    def __init__(self, num_envs, reuse=False):
        self.reuse = reuse
        self.place, self.steps = np.zeros(num_envs), np.zeros(num_envs)
        super().__init__(num_envs)
        self.written = np.zeros((num_envs, 2), np.float32)
        self.paid, self.cut = np.zeros(num_envs), np.zeros(num_envs, bool)
        self.flags = np.zeros((num_envs, 1))

    def start(self, copies, seeds):
        self.place[copies], self.steps[copies] = (seeds % 100) / 50 - 1, 0
        self.flags[copies] = 0.0

    def advance(self, actions):
        self.place += actions[:, 0]
        if self.reuse:
            actions[:] = 0.0
        self.steps += 1
        self.paid[:], self.cut[:], self.flags[:, 0] = self.steps, self.steps >= 5, self.steps >= 5
        return self.paid, np.zeros(self.num_envs, bool), self.cut, {"is_success": self.flags}

    def observe(self, copies=slice(None)):
        self.written[:] = np.stack([self.place, self.steps], axis=1)
        return self.written[copies] if self.reuse else self.written[copies].copy()


def walk(env):
    return lambda seen: np.array(
        [0.5 if np.ravel(list(seen.values()) if isinstance(seen, dict) else seen)[1] < 3 else -0.5], np.float32
    )


def walk_in_place(env):
    action, plain = np.zeros(1, np.float32), walk(env)

    def act(seen):
        action[:] = plain(seen)
        for array in seen.values() if isinstance(seen, dict) else [seen]:
            array[:] = 9.0
        return action

    return act


def walk_in_lists(env):
    plain = walk(env)
    return lambda seen: plain(seen).tolist()


class Twice(Walk):
    def step(self, action):
        return super().step((action * 2)[:1])


def kept(form, steps=12, **kwargs):
    """What a trainer holds after some steps: everything it was given, looked at afterwards."""
    if form == "batched":
        environment = Environment(f"{HERE}:WalkInBatches", **kwargs)
    else:
        environment = Environment(f"{HERE}:Walk", vectorize=form, **kwargs)
    env = make_vec_env(environment, 2, 0, 0)
    try:
        held = [env.reset()]
        for step in range(steps):
            held.append(env.step(np.full((2, 1), 0.25 * (step % 3), np.float32)))
        episodes = monitor_of(env).take()
        return held, episodes, monitor_of(env).state_dict()
    finally:
        env.close()


def same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["vector", "dict"])
@pytest.mark.parametrize("form", mostly_slow(["in-process", "subprocess"], 1))
def test_copies_that_reuse_their_arrays_give_what_others_give(form, kind):
    held, episodes, state = kept(form, kind=kind)
    reused = kept(form, kind=kind, reuse=True)

    same(held, reused[0])
    same(state, reused[2])
    assert episodes == reused[1] and [episode.success for episode in episodes] == [True] * 4


def test_a_batch_that_reuses_its_arrays_gives_what_others_give():
    held, episodes, state = kept("batched")
    reused = kept("batched", reuse=True)

    same(held, reused[0])
    same(state, reused[2])
    assert episodes == reused[1] and [episode.success for episode in episodes] == [True] * 4


@pytest.mark.parametrize("form", ["in-process", "subprocess", "batched"])
def test_what_a_caller_holds_is_not_written_into(form):
    name = "WalkInBatches" if form == "batched" else "Walk"
    env = monitor_of(make_vec_env(Environment(f"{HERE}:{name}", vectorize=form, reuse=True), 2, 0, 0))
    try:
        env.reset()
        given, lengths = np.full((2, 1), 0.5, np.float32), env.lengths
        env.step(given)

        assert given.tolist() == [[0.5], [0.5]] and lengths.tolist() == [0, 0]
    finally:
        env.close()


@pytest.mark.skipif(not RESETS_ITSELF, reason="this gymnasium has none")
def test_what_a_caller_writes_into_is_its_own():
    def told(spoil):
        env = monitor_of(make_vec_env(Environment(VECTOR_CARTPOLE), 2, 0, 0))
        env.reset()
        for _ in range(40):
            observations, rewards, dones, _ = env.step(np.ones(2, np.int64))
            if spoil:
                observations[:], rewards[:], dones[:] = 9.0, 9.0, False
        return [(e.copy, e.number, e.total_reward, e.length, e.began) for e in env.take()]

    assert told(spoil=True) == told(spoil=False) != []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["in-process", "subprocess"])
def test_an_interrupted_episode_is_played_again_with_the_actions_that_were_sent(form):
    environment = Environment(f"{HERE}:Walk", vectorize=form, reuse=True)
    _, _, state = kept(form, reuse=True)
    env = make_vec_env(environment, 2, 0, 0)
    try:
        _, different = monitor_of(env).load_state_dict(state)
        assert different == []
        same(monitor_of(env).state_dict(), state)
    finally:
        env.close()


@pytest.mark.parametrize("kind", ["vector", "dict"])
@pytest.mark.parametrize("expert", ["walk", "walk_in_place"])
def test_demonstrations_hold_what_was_seen_and_done_in_each_step(kind, expert):
    def shown(expert, **kwargs):
        who = Expert(f"{HERE}:{expert}", episodes=2)
        return record(Environment(f"{HERE}:Walk", kind=kind, **kwargs), who, showing(who))

    right, reused = shown("walk"), shown(expert, reuse=True)

    assert len(np.unique(right.episodes[0].actions)) == 2
    for one, other in zip(right.episodes, reused.episodes, strict=True):
        same([one.observations, one.actions, one.rewards], [other.observations, other.actions, other.rewards])
        assert one.success is other.success is True


def test_one_copy_of_a_batch_may_reuse_its_arrays_too():
    env = make_environment(Environment(f"{HERE}:WalkInBatches", reuse=True))
    first, _ = env.reset(seed=1)

    assert env.unwrapped.batched.num_envs == 1 and first.shape == (2,)


def test_an_environment_is_given_arrays_where_an_expert_returns_lists():
    def shown(expert):
        who = Expert(f"{HERE}:{expert}", episodes=1)
        return record(Environment(f"{HERE}:Twice"), who, showing(who)).episodes[0]

    same(shown("walk").observations, shown("walk_in_lists").observations)
