"""What is not known here, for those who come from stable-baselines3 and other tools."""

import numpy as np
import pytest
import toys
from building import curriculum, mostly_slow, tuning
from gymnasium import spaces

from rlstages import Agent, BehaviorCloning, Environment, Expert, FineTuning, InputError, RewardThreshold
from rlstages.demonstrations.episodes import load_demonstrations
from rlstages.environments.make import make_environment
from rlstages.play.experts import showing
from rlstages.training.preflight import preflight


def sentence_of(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("name", ["SAC", "TD3", "DQN", "DDPG", "TQC", "RecurrentPPO", "MaskablePPO", "TRPO", "sac"])
def test_an_algorithm_of_others_says_which_there_are(name):
    said = sentence_of(Agent, name)
    assert "'PPO' and 'A2C'" in said and repr(name) in said and "mean" not in said


@pytest.mark.parametrize(
    "given, instead",
    [
        ({"net_arch": [64]}, "network="),
        ({"policy_kwargs": {}}, "network="),
        ({"activation_fn": None}, "activation="),
        ({"total_timesteps": 1}, "max_steps"),
        ({"n_timesteps": 1}, "max_steps"),
        ({"verbose": 1}, "console=True"),
        ({"tensorboard_log": "x"}, "track="),
        ({"env": "x"}, "Environment("),
        ({"normalize": True}, "normalize_observations=True"),
        ({"buffer_size": 1}, "replay"),
        ({"n_env": 1}, "Did you mean 'n_envs'?"),
    ],
)
def test_words_of_stable_baselines3_are_translated(given, instead):
    said = sentence_of(Agent, "PPO", **given)
    assert said.startswith(f"Agent takes no {next(iter(given))!r}") and instead in said


def test_stages_experts_and_thresholds_say_what_they_do_not_take():
    pole, sure = Environment("CartPole-v1"), RewardThreshold(9)
    assert "max_steps" in sentence_of(FineTuning, "a", pole, until=sure, total_timesteps=9)
    assert "set it on the Agent" in sentence_of(FineTuning, "a", pole, until=sure, n_envs=9)
    assert "Did you mean 'max_epochs'?" in sentence_of(BehaviorCloning, "a", pole, max_epoch=3)
    assert "Did you mean 'episodes'?" in sentence_of(Expert, "a:b", episode=3)
    assert "Did you mean 'window'?" in sentence_of(RewardThreshold, 9, windows=3)


def test_what_has_to_be_named_says_so():
    said = sentence_of(Agent, "PPO", "MlpPolicy")
    assert said == "Agent takes only algorithm without a name; write name=value for 'MlpPolicy'."
    said = sentence_of(FineTuning, "a", Environment("b"), RewardThreshold(9))
    assert said.startswith("FineTuning takes only name and environment without a name")


@pytest.mark.parametrize("name", ["learning_rate", "clip_range", "clip_range_vf"])
def test_a_function_as_a_schedule_says_what_moves(name):
    assert f"{name} is a function; write Linear(start, end)" in sentence_of(Agent, **{name: lambda progress: 0.1})


def test_layers_for_actor_and_critic_apart_are_refused():
    assert "actor and critic each" in sentence_of(Agent, network={"pi": [8], "vf": [8]})


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
    assert "an object of test_unknown.Env, which" in sentence_of(make_environment, Environment("test_unknown:Env"))
    for maker in ("old_environment", "old_spaces"):
        said = sentence_of(make_environment, Environment(f"test_unknown:{maker}"))
        assert "old package gym; " in said and "shimmy" in said
    assert "gym.core.Env" in sentence_of(make_environment, Environment("test_unknown:old_environment"))


def test_folders_that_are_no_demonstrations_say_what_to_do(tmp_path):
    (tmp_path / "minari" / "data").mkdir(parents=True)
    (tmp_path / "minari" / "data" / "metadata.json").write_text("{}")
    assert "Minari" in sentence_of(load_demonstrations, tmp_path / "minari")
    assert "Minari" in sentence_of(load_demonstrations, "D4RL/pointmaze/umaze-v2")
    (tmp_path / "main_data.hdf5").write_bytes(b"")
    assert "HDF5" in sentence_of(load_demonstrations, tmp_path / "main_data.hdf5")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert f"Expert({str(tmp_path / 'run')!r})" in sentence_of(load_demonstrations, tmp_path / "run")
    assert "There are no demonstrations" in sentence_of(load_demonstrations, tmp_path / "none")


def test_models_of_other_packages_say_what_to_do(tmp_path):
    import zipfile

    file = tmp_path / "model.zip"
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("data", '{"policy_class": {"__module__": "sb3_contrib.common.recurrent.policies"}}')
    for expert in (Expert(file), Expert(file, algorithm="MaskablePPO")):
        said = sentence_of(showing, expert)
        assert "sb3-contrib" in said and "a function expert(env)" in said
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("data", '{"policy_class": {"__module__": "stable_baselines3.common.policies"}}')
    assert "--trust-pickle" in sentence_of(showing, Expert(file))
