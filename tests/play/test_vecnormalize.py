"""What VecNormalize saved is read without unpickling it, and an expert sees observations as it was trained to."""

import pickle
import tracemalloc

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from refusing import refused
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlstages import Environment, Expert
from rlstages.environments.make import make_environment
from rlstages.play.experts import remedy_for, showing, statistics_beside, unused_statistics
from rlstages.play.vecnormalize import read_statistics


class Parts(gym.Env):
    observation_space = spaces.Dict(
        {"near": spaces.Box(-9.0, 9.0, (3,), np.float32), "far": spaces.Box(-9.0, 9.0, (2, 2), np.float64)}
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


def pendulum():
    return gym.make("Pendulum-v1")


def saved(maker, path, **settings):
    env = VecNormalize(DummyVecEnv([maker] * 2), **settings)
    env.seed(3)
    env.reset()
    for _ in range(40):
        env.step(np.array([env.action_space.sample() for _ in range(2)]))
    env.save(str(path))
    env.training = False
    return env


@pytest.mark.parametrize(
    ("maker", "settings"),
    [
        (pendulum, {}),
        (pendulum, {"clip_obs": 0.5, "epsilon": np.float32(0.1), "norm_reward": False}),
        (pendulum, {"norm_obs": False}),
        (Parts, {}),
        (Parts, {"norm_obs_keys": ["far"]}),
    ],
    ids=["vector", "clipped", "rewards only", "dictionary", "one key"],
)
def test_observations_are_standardised_as_vecnormalize_does(maker, settings, tmp_path):
    env = saved(maker, tmp_path / "kept.pkl", **settings)
    statistics = read_statistics(tmp_path / "kept.pkl")
    statistics.require_fit("kept.pkl", env.observation_space)
    originals, wanted = env.get_original_obs(), env.normalize_obs(env.get_original_obs())

    if isinstance(originals, dict):
        seen = statistics.apply({key: part[0] for key, part in originals.items()})
        assert seen.keys() == wanted.keys()
        for key, part in seen.items():
            np.testing.assert_array_equal(part, wanted[key][0])
    else:
        np.testing.assert_array_equal(statistics.apply(originals[0]), wanted[0])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(protocol, tmp_path):
    env = saved(pendulum, tmp_path / "kept.pkl")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(env, protocol))

    one, other = read_statistics(tmp_path / "kept.pkl"), read_statistics(tmp_path / "other.pkl")
    for mine, theirs in zip(one.moments[None], other.moments[None], strict=True):
        np.testing.assert_array_equal(mine, theirs)


class Touching:
    """Its pickle names a harmless function, which would leave a file behind."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_nothing_that_a_pickle_names_is_called(tmp_path):
    left, bad = tmp_path / "left behind", tmp_path / "bad.pkl"
    bad.write_bytes(pickle.dumps(Touching(left)))

    with refused("file-damaged", where="bad.pkl"):
        read_statistics(bad)
    assert not left.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no pickle at all", ("file-damaged", "bad.pkl", "")),
        (pickle.dumps({"obs_rms": 1}), ("file-damaged", "bad.pkl", "")),
        (pickle.dumps(np.arange(3)), ("file-damaged", "bad.pkl", "")),
    ],
)
def test_other_files_are_refused_in_one_sentence(content, sentence, tmp_path):
    (tmp_path / "bad.pkl").write_bytes(content)

    with refused(*sentence):
        read_statistics(tmp_path / "bad.pkl")


@pytest.mark.parametrize("content", [b"\x80\x04Nr\xff\xff\xff\x01.", b"\x80\x04(" + b"]" * 10**5 + b"l."])
def test_small_files_that_would_take_much_memory_are_refused_before_they_do(content, tmp_path, monkeypatch):
    monkeypatch.setattr("rlstages.play.vecnormalize.MAX_OPERATIONS", 10**4)
    (tmp_path / "bad.pkl").write_bytes(content)
    tracemalloc.start()
    try:
        with refused("file-damaged", where="bad.pkl"):
            read_statistics(tmp_path / "bad.pkl")
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def test_damaged_and_missing_files_are_refused(tmp_path):
    saved(pendulum, tmp_path / "kept.pkl")
    whole = (tmp_path / "kept.pkl").read_bytes()
    for end in (1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pkl").write_bytes(whole[:end])
        with refused("file-damaged", where="cut.pkl"):
            read_statistics(tmp_path / "cut.pkl")
    with refused("file-missing", where="gone.pkl"):
        read_statistics(tmp_path / "gone.pkl")


def test_an_expert_is_shown_what_it_was_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = saved(pendulum, "vecnormalize.pkl")
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=16)
    model.save("model.zip")
    seen = np.array([0.5, -0.5, 3.0], np.float32)
    wanted, _ = model.predict(env.normalize_obs(seen), deterministic=True)
    raw, _ = model.predict(seen, deterministic=True)

    who = Expert("model.zip", normalize="vecnormalize.pkl")
    act = showing(who, trust_pickle=True)(make_environment(Environment("Pendulum-v1")))

    np.testing.assert_array_equal(act(seen), wanted)
    assert not np.array_equal(wanted, raw)


def test_statistics_of_other_observations_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(Parts, "vecnormalize.pkl")
    PPO("MlpPolicy", saved(pendulum, "own.pkl"), n_steps=16, batch_size=16).save("model.zip")

    with refused("expert-invalid", where="vecnormalize.pkl", name="normalize"):
        showing(Expert("model.zip", normalize="vecnormalize.pkl"), trust_pickle=True)
    with refused("setting-conflict", where="Expert('runs/one')", name="normalize"):
        Expert("runs/one", normalize="vecnormalize.pkl")


def test_of_several_files_the_one_that_belongs_to_the_model_is_named(tmp_path):
    for name in ("rl_model_vecnormalize_100_steps", "rl_model_vecnormalize_200_steps"):
        (tmp_path / f"{name}.pkl").touch()
    zoo = tmp_path / "zoo" / "Pendulum-v1"
    zoo.mkdir(parents=True)
    (zoo / "vecnormalize.pkl").touch()

    assert statistics_beside(tmp_path / "rl_model_200_steps.zip").name == "rl_model_vecnormalize_200_steps.pkl"
    assert statistics_beside(tmp_path / "zoo" / "Pendulum-v1.zip") == zoo / "vecnormalize.pkl"
    assert statistics_beside(tmp_path / "zoo" / "Pendulum-v1" / "elsewhere" / "model.zip") is None


def test_statistics_that_lie_beside_a_model_and_are_not_used_are_told_of(tmp_path):
    model = Expert(str(tmp_path / "model.zip"))
    assert unused_statistics(model) == []
    saved(pendulum, tmp_path / "vecnormalize.pkl", norm_obs=False)
    assert unused_statistics(model) == []
    saved(pendulum, tmp_path / "vecnormalize.pkl")

    (said,) = unused_statistics(model)
    assert "sees observations as they are" in said and str(tmp_path / "vecnormalize.pkl") in said


def test_a_file_beside_a_model_is_named_where_the_model_cannot_do_its_task(tmp_path):
    def remedy(expert):
        return remedy_for(expert)

    alone = remedy(Expert(str(tmp_path / "model.zip")))
    (tmp_path / "vecnormalize.pkl").touch()

    assert "it saves them in a .pkl file" in alone
    assert str(tmp_path / "vecnormalize.pkl") in remedy(Expert(str(tmp_path / "model.zip")))
    assert remedy(Expert(str(tmp_path / "model.zip"), normalize="x.pkl")) == remedy(Expert("toys:tell")) == ""
