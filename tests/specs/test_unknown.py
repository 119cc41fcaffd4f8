"""What is not known here, for those who come from stable-baselines3 and other tools."""

import numpy as np
import pytest
import toys
from building import curriculum, mostly_slow, tuning
from gymnasium import spaces
from refusing import refusal

from rlstages import Agent, BehaviorCloning, Environment, Expert, FineTuning, RewardThreshold
from rlstages.demonstrations.episodes import load_demonstrations
from rlstages.environments.make import make_environment
from rlstages.play.experts import showing
from rlstages.training.preflight import preflight


@pytest.mark.parametrize("name", ["SAC", "TD3", "DQN", "DDPG", "TQC", "RecurrentPPO", "MaskablePPO", "TRPO", "sac"])
def test_an_algorithm_of_others_is_refused(name):
    assert refusal(Agent, name) == ("name-unknown", "Agent", "algorithm")


@pytest.mark.parametrize("name", ["net_arch", "policy_kwargs", "total_timesteps", "verbose", "buffer_size", "n_env"])
def test_words_of_stable_baselines3_are_refused(name):
    assert refusal(Agent, "PPO", **{name: 1}) == ("setting-unknown", "Agent", name)


def test_stages_experts_and_thresholds_say_what_they_do_not_take():
    pole, sure = Environment("CartPole-v1"), RewardThreshold(9)
    assert refusal(FineTuning, "a", pole, until=sure, total_timesteps=9) == (
        "setting-unknown",
        "FineTuning",
        "total_timesteps",
    )
    assert refusal(FineTuning, "a", pole, until=sure, n_envs=9) == ("setting-unknown", "FineTuning", "n_envs")
    assert refusal(BehaviorCloning, "a", pole, max_epoch=3) == ("setting-unknown", "BehaviorCloning", "max_epoch")
    assert refusal(Expert, "a:b", episode=3) == ("setting-unknown", "Expert", "episode")
    assert refusal(RewardThreshold, 9, windows=3) == ("setting-unknown", "RewardThreshold", "windows")


def test_what_has_to_be_named_says_so():
    assert refusal(Agent, "PPO", "MlpPolicy") == ("setting-unknown", "Agent", "")
    assert refusal(FineTuning, "a", Environment("b"), RewardThreshold(9)) == ("setting-unknown", "FineTuning", "")


@pytest.mark.parametrize("name", ["learning_rate", "clip_range", "clip_range_vf"])
def test_a_function_as_a_schedule_says_what_moves(name):
    assert refusal(Agent, **{name: lambda progress: 0.1}) == ("setting-type", "PPO", name)


def test_layers_for_actor_and_critic_apart_are_refused():
    assert refusal(Agent, network={"pi": [8], "vf": [8]}) == ("setting-type", "Agent", "network")


def pictures(pixels=40, dtype=np.uint8, high=255):
    return toys.OtherSpaces(observation=spaces.Box(0, high, (pixels, pixels, 3), dtype))


@pytest.mark.parametrize(
    "policy, kwargs, said",
    mostly_slow(
        [
            ("MlpPolicy", {}, True),
            ("CnnPolicy", {}, False),
            ("MlpPolicy", {"pixels": 7}, False),
            ("MlpPolicy", {"high": 10}, False),
        ],
        2,
    ),
)
def test_pictures_for_a_policy_of_vectors_are_said(policy, kwargs, said):
    environment = Environment("test_unknown:pictures", **kwargs)
    stage = tuning(environment=environment, until=RewardThreshold(9), max_steps=4_000)
    doubts = preflight(curriculum(stage, policy=policy)).doubts
    assert any("CnnPolicy" in doubt for doubt in doubts) is said


class Env:
    """As the old gym's, whose class has the same name."""

    observation_space = action_space = None

    def reset(self):
        return 0

    def step(self, action):
        return 0, 0.0, True, {}


OldEnv = type("Env", (Env,), {"__module__": "gym.core"})
OldBox = type("Box", (), {"__module__": "gym.spaces.box"})


def old_environment():
    return OldEnv()


def old_spaces():
    made = toys.Echo()
    made.observation_space = OldBox()
    return made


def test_what_is_no_environment_is_named_with_its_package():
    assert refusal(make_environment, Environment("test_unknown:Env")) == ("environment-invalid", "Env", "")
    environment = Environment("test_unknown:old_spaces")
    assert refusal(make_environment, environment) == ("spaces-unsupported", "old_spaces", "")
    assert refusal(make_environment, Environment("test_unknown:old_environment")) == (
        "environment-invalid",
        "old_environment",
        "",
    )


def test_folders_that_are_no_demonstrations_say_what_to_do(tmp_path):
    (tmp_path / "minari" / "data").mkdir(parents=True)
    (tmp_path / "minari" / "data" / "metadata.json").write_text("{}")
    assert refusal(load_demonstrations, tmp_path / "minari") == ("file-missing", "minari", "")
    assert refusal(load_demonstrations, "D4RL/pointmaze/umaze-v2") == ("file-missing", "D4RL/pointmaze/umaze-v2", "")
    (tmp_path / "main_data.hdf5").write_bytes(b"")
    assert refusal(load_demonstrations, tmp_path / "main_data.hdf5") == ("demonstrations-invalid", "main_data.hdf5", "")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert refusal(load_demonstrations, tmp_path / "run") == ("file-missing", "run", "")
    assert refusal(load_demonstrations, tmp_path / "none") == ("file-missing", "none", "")


def test_models_of_other_packages_say_what_to_do(tmp_path):
    import zipfile

    file = tmp_path / "model.zip"
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("data", '{"policy_class": {"__module__": "sb3_contrib.common.recurrent.policies"}}')
    for expert in (Expert(file), Expert(file, algorithm="MaskablePPO")):
        assert refusal(showing, expert) == ("expert-invalid", "model.zip", "")
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("data", '{"policy_class": {"__module__": "stable_baselines3.common.policies"}}')
    assert refusal(showing, Expert(file)) == ("untrusted", "model.zip", "")
