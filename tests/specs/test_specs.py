import dataclasses
import math
from pathlib import Path
from unittest.mock import ANY

import pytest
from refusing import refused

from rlstages import A2C, PPO, Agent, Environment, Expert, FineTuning, Linear, RewardThreshold
from rlstages.specs.schedules import value_at
from rlstages.specs.serialization import from_data, to_data


def wrap(env):
    return env


def solved(info, total, length):
    return total > 1


class Task:
    pass


HERE = __name__


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Environment(""), ("setting-missing", "Environment", "id")),
        (lambda: Environment(" "), ("setting-missing", "Environment", "id")),
        (lambda: Environment(lambda: 1), ("name-invalid", "Environment", "")),
        (lambda: Environment(5), ("name-invalid", "Environment", "")),
        (lambda: Environment("a", wrappers="w:x"), ("setting-type", "Environment('a')", "wrappers")),
        (lambda: Environment("a", wrappers=wrap), ("setting-type", "Environment('a')", "wrappers")),
        (lambda: Environment("a", wrappers=["w"]), ("name-invalid", "Environment('a')", "")),
        (lambda: Environment("a", wrappers=[lambda env: env]), ("name-invalid", "Environment('a')", "")),
        (lambda: Environment("a", kwargs=[1]), ("setting-type", "Environment('a')", "kwargs")),
        (lambda: Environment("a", kwargs={"x": 1}, x=2), ("setting-conflict", "Environment('a')", "kwargs")),
        (lambda: Environment("a", vectorize="subproces"), ("choice-unknown", "Environment('a')", "vectorize")),
        (lambda: Environment("a", success=""), ("setting-missing", "Environment('a')", "success")),
        (lambda: Environment("a", success=":f"), ("name-invalid", "Environment('a')", "")),
        (lambda: Environment("a", success=math.nan), ("setting-range", "Environment('a')", "success")),
        (lambda: Environment("a", success=True), ("setting-type", "Environment('a')", "success")),
        (lambda: Environment("a", success=None), ("setting-type", "Environment('a')", "success")),
        (lambda: Environment("a", success=lambda i, r, n: True), ("name-invalid", "Environment('a')", "")),
        (lambda: Environment("a", x=math.inf), ("setting-type", "Environment('a')", "")),
        (lambda: Environment("a", x={1, 2}), ("setting-type", "Environment('a')", "")),
        (lambda: Environment("a", x=wrap), ("setting-type", "Environment('a')", "")),
        (lambda: Linear(math.nan, 0), ("setting-range", "Linear", "start")),
        (lambda: Linear(1, -1), ("setting-range", "Linear", "end")),
        (lambda: Agent("PPG"), ("name-unknown", "Agent", "algorithm")),
        (lambda: Agent(policy="MlpPolicies"), ("choice-unknown", "Agent", "policy")),
        (lambda: Agent(activation="gelu"), ("choice-unknown", "Agent", "activation")),
        (lambda: Agent(action_mode="greedy"), ("choice-unknown", "Agent", "action_mode")),
        (lambda: Agent(n_envs=0), ("setting-range", "Agent", "n_envs")),
        (lambda: Agent(n_envs=2.5), ("setting-type", "Agent", "n_envs")),
        (lambda: Agent(n_steps=1), ("setting-range", "PPO", "n_steps")),
        (lambda: Agent(gamma=0), ("setting-range", "PPO", "gamma")),
        (lambda: Agent(gamma=1.01), ("setting-range", "PPO", "gamma")),
        (lambda: Agent(gae_lambda=-0.1), ("setting-range", "PPO", "gae_lambda")),
        (lambda: Agent(log_std_init=math.inf), ("setting-range", "Agent", "log_std_init")),
        (lambda: Agent(network=64), ("setting-type", "Agent", "network")),
        (lambda: Agent(network=[64, 0]), ("setting-range", "Agent", "a number of network")),
        (lambda: Agent(network=["64"]), ("setting-type", "Agent", "a number of network")),
        (lambda: Agent(normalize_observations="no"), ("setting-type", "Agent", "normalize_observations")),
        (lambda: Agent(normalize_rewards=1), ("setting-type", "Agent", "normalize_rewards")),
        (lambda: Agent(device="gpu"), ("choice-unknown", "Agent", "device")),
        (lambda: Agent(device="cuda:x"), ("choice-unknown", "Agent", "device")),
        (lambda: Agent(device=0), ("choice-unknown", "Agent", "device")),
        (lambda: Agent(learning_rate=0), ("setting-range", "PPO", "learning_rate")),
        (lambda: Agent(learning_rate="3e-4"), ("setting-type", "PPO", "learning_rate")),
        (lambda: Agent(clip_range=-1), ("setting-range", "PPO", "clip_range")),
        (lambda: Agent(clip_range_vf=0.0), ("setting-range", "PPO", "clip_range_vf")),
        (lambda: Agent(ent_coef=-1), ("setting-range", "PPO", "ent_coef")),
        (lambda: Agent(vf_coef=math.nan), ("setting-range", "PPO", "vf_coef")),
        (lambda: Agent(max_grad_norm=0), ("setting-range", "PPO", "max_grad_norm")),
        (lambda: Agent(target_kl=0), ("setting-range", "PPO", "target_kl")),
        (lambda: Agent(n_epochs=0), ("setting-range", "PPO", "n_epochs")),
        (lambda: Agent(batch_size=1), ("setting-range", "PPO", "batch_size")),
        (lambda: Agent("A2C", clip_range=0.2), ("setting-unknown", "Agent", "clip_range")),
        (lambda: Agent("A2C", clip_range_vf=0.2), ("setting-unknown", "Agent", "clip_range_vf")),
        (lambda: Agent("A2C", n_epochs=2, batch_size=8), ("setting-unknown", "Agent", "n_epochs")),
        (lambda: Expert(lambda env: env), ("name-invalid", "Expert", "")),
        (lambda: Expert(5), ("name-invalid", "Expert", "")),
        (lambda: Expert(""), ("setting-missing", "Expert", "source")),
        (lambda: Expert("a:"), ("name-invalid", "Expert", "")),
        (lambda: Expert("a:b", episodes=0), ("setting-range", "Expert('a:b')", "episodes")),
        (lambda: Expert("a:b", kind="oracle"), ("choice-unknown", "Expert", "kind")),
        (lambda: Expert("a.zip", algorithm="P P O"), ("name-invalid", "Expert('a.zip')", "algorithm")),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(make, said):
    with refused(*said):
        make()


def test_functions_and_classes_become_names():
    environment = Environment(Task, wrappers=[wrap, "other:w"], success=solved)
    assert environment.id == f"{HERE}:Task"
    assert environment.wrappers == (f"{HERE}:wrap", "other:w")
    assert environment.success == f"{HERE}:solved"
    assert Expert(wrap).source == f"{HERE}:wrap" and Expert(wrap).kind == "function"


def test_arguments_are_frozen_and_the_callers_may_change_theirs():
    rooms = {"size": [4, 5]}
    environment = Environment("a", kwargs={"wrappers": 3}, rooms=rooms)
    rooms["size"].append(6)
    assert environment.kwargs == {"wrappers": 3, "rooms": {"size": (4, 5)}}
    with pytest.raises(TypeError):
        environment.kwargs["rooms"] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        environment.id = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Agent().gamma = 0.5


def test_equal_specs_are_one_key_and_replace_works():
    assert len({Environment("a", x=1, y=[2]), Environment("a", y=(2,), x=1), Environment("a", x=1)}) == 2
    assert len({Agent(network=[8]), Agent(network=(8,)), Agent()}) == 2
    assert dataclasses.replace(Environment("a", x=1), vectorize="batched").kwargs == {"x": 1}


@pytest.mark.parametrize(
    "environment, text",
    [
        (Environment("CartPole-v1"), "CartPole-v1"),
        (Environment("rlstages_envs:rlstages/Rooms-v0", rooms=2), "Rooms-v0(rooms=2)"),
        (Environment("tasks:make", a="x", b=(1, 2)), "make(a='x', b=(1, 2))"),
    ],
)
def test_an_environment_reads_like_a_call(environment, text):
    assert str(environment) == text


@pytest.mark.parametrize(
    "source, kind, text",
    [
        ("tasks:plan", "function", "100 episodes of plan"),
        ("runs/rooms-s0", "run", "100 episodes of runs/rooms-s0"),
        (Path("runs") / "a", "run", "100 episodes of runs/a"),
        ("models/best.zip", "model", "100 episodes of models/best.zip"),
        (r"C:\runs\a", "run", r"100 episodes of C:\runs\a"),
    ],
)
def test_what_an_expert_is_follows_from_its_source(source, kind, text):
    expert = Expert(source)
    assert (expert.kind, str(expert)) == (kind, text)
    assert isinstance(expert.source, str)


def test_a_schedule_runs_from_start_to_end_and_stays_there():
    schedule = Linear(1.0, 0.5)
    assert [schedule.at(p) for p in (-1, 0, 0.5, 1, 2)] == [1.0, 1.0, 0.75, 0.5, 0.5]
    assert value_at(schedule, 0.5) == 0.75 and value_at(3e-4, 0.5) == 3e-4
    assert str(schedule) == "1 to 0.5"


def test_settings_are_the_stages_before_the_agents_before_the_algorithms():
    agent = Agent(learning_rate=1e-3, ent_coef=0.01)
    in_force = agent.settings({"learning_rate": 1e-4})
    assert (in_force["learning_rate"], in_force["ent_coef"], in_force["n_epochs"]) == (1e-4, 0.01, 10)
    assert "clip_range" not in Agent("A2C").settings()


def test_settings_given_to_the_agent_are_the_algorithms():
    agent = Agent("A2C", n_steps=16, n_envs=4)
    assert agent == Agent(A2C(n_steps=16), n_envs=4) and agent.rollout_steps == 64
    assert dataclasses.replace(agent, gamma=0.9).algorithm == A2C(n_steps=16, gamma=0.9)
    assert from_data(to_data(agent)) == agent


def test_settings_given_to_a_stage_are_checked_and_kept_apart():
    stage = FineTuning("a", Environment("b"), until=RewardThreshold(1.0), max_steps=9, n_epochs=4.0, target_kl=0.1)
    assert stage.settings == {"n_epochs": 4, "target_kl": 0.1} and isinstance(stage.settings["n_epochs"], int)
    assert dataclasses.replace(stage, n_epochs=5).settings == {"n_epochs": 5, "target_kl": 0.1}
    assert from_data(to_data(stage)) == stage and "; n_epochs=4, target_kl=0.1" in str(stage)
    for wrong, name in (
        ({"n_epochs": 0}, "n_epochs"),
        ({"settings": {"n_epoch": 3}}, "n_epoch"),
        ({"settings": 3}, "settings"),
    ):
        with refused(ANY, where="stage 'a'", name=name):
            dataclasses.replace(stage, **wrong)


def test_sizes_that_follow_from_the_algorithm():
    assert Agent("PPO", n_envs=4).rollout_steps == 512 and Agent("A2C", n_envs=4).rollout_steps == 32
    lambdas = [agent.algorithm.gae_lambda for agent in (Agent("PPO"), Agent("A2C"), Agent(gae_lambda=0.9))]
    assert lambdas == [0.95, 1.0, 0.9]


def test_settings_that_a2c_would_ignore_are_refused_in_stages_too():
    assert PPO().with_settings("stage 'a'", {"target_kl": 0.1}) == PPO(target_kl=0.1)
    with refused("setting-unknown", where="stage 'a'", name="target_kl"):
        A2C().with_settings("stage 'a'", {"target_kl": 0.1})
