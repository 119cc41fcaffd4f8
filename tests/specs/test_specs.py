import dataclasses
import math
from pathlib import Path

import pytest

from rlstages import A2C, PPO, Agent, Environment, Expert, FineTuning, InputError, Linear, RewardThreshold
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
        (lambda: Environment(""), "the id is empty"),
        (lambda: Environment(" "), "the id is empty"),
        (lambda: Environment(lambda: 1), "Environment: a lambda has no name"),
        (lambda: Environment(5), "Environment: 5 has no name to import it by"),
        (lambda: Environment("a", wrappers="w:x"), "Environment('a'): wrappers is 'w:x'; give a list"),
        (lambda: Environment("a", wrappers=wrap), "wrappers is <function wrap"),
        (lambda: Environment("a", wrappers=["w"]), "Environment('a'): 'w' is not of the form 'module:name'"),
        (lambda: Environment("a", wrappers=[lambda env: env]), "has no name to import it by"),
        (lambda: Environment("a", kwargs=[1]), "kwargs is [1]; give a dictionary"),
        (lambda: Environment("a", kwargs={"x": 1}, x=2), "Environment('a'): x given twice"),
        (lambda: Environment("a", vectorize="subproces"), "Did you mean 'subprocess'?"),
        (lambda: Environment("a", success=""), "success is empty"),
        (lambda: Environment("a", success=":f"), "is not of the form 'module:name'"),
        (lambda: Environment("a", success=math.nan), "success is nan; give a finite number"),
        (lambda: Environment("a", success=True), "success is True; give a finite number"),
        (lambda: Environment("a", success=None), "success is None; give a finite number"),
        (lambda: Environment("a", success=lambda i, r, n: True), "has no name to import it by"),
        (lambda: Environment("a", x=math.inf), "Environment('a'): inf cannot be written as JSON"),
        (lambda: Environment("a", x={1, 2}), "cannot be written as JSON"),
        (lambda: Environment("a", x=wrap), "name classes and functions as 'module:name'"),
        (lambda: Linear(math.nan, 0), "Linear: start is nan"),
        (lambda: Linear(1, -1), "Linear: end is -1"),
        (lambda: Agent("PPG"), "Agent: algorithm is 'PPG'; there are 'PPO' and 'A2C'."),
        (lambda: Agent(policy="MlpPolicies"), "Did you mean 'MlpPolicy'?"),
        (lambda: Agent(activation="gelu"), "activation is 'gelu'"),
        (lambda: Agent(action_mode="greedy"), "action_mode is 'greedy'"),
        (lambda: Agent(n_envs=0), "n_envs is 0"),
        (lambda: Agent(n_envs=2.5), "n_envs is 2.5"),
        (lambda: Agent(n_steps=1), "n_steps is 1; give a whole number of at least 2"),
        (lambda: Agent(gamma=0), "gamma is 0"),
        (lambda: Agent(gamma=1.01), "gamma is 1.01"),
        (lambda: Agent(gae_lambda=-0.1), "gae_lambda is -0.1"),
        (lambda: Agent(log_std_init=math.inf), "log_std_init is inf"),
        (lambda: Agent(network=64), "network is 64; give a list"),
        (lambda: Agent(network=[64, 0]), "a number of network is 0"),
        (lambda: Agent(network=["64"]), "a number of network is '64'"),
        (lambda: Agent(normalize_observations="no"), "normalize_observations is 'no'; give True or False"),
        (lambda: Agent(normalize_rewards=1), "normalize_rewards is 1; give True or False"),
        (lambda: Agent(device="gpu"), "device is 'gpu'"),
        (lambda: Agent(device="cuda:x"), "device is 'cuda:x'"),
        (lambda: Agent(device=0), "device is 0"),
        (lambda: Agent(learning_rate=0), "learning_rate is 0"),
        (lambda: Agent(learning_rate="3e-4"), "learning_rate is '3e-4'"),
        (lambda: Agent(clip_range=-1), "clip_range is -1"),
        (lambda: Agent(clip_range_vf=0.0), "clip_range_vf is 0"),
        (lambda: Agent(ent_coef=-1), "ent_coef is -1"),
        (lambda: Agent(vf_coef=math.nan), "vf_coef is nan"),
        (lambda: Agent(max_grad_norm=0), "max_grad_norm is 0"),
        (lambda: Agent(target_kl=0), "target_kl is 0"),
        (lambda: Agent(n_epochs=0), "n_epochs is 0"),
        (lambda: Agent(batch_size=1), "batch_size is 1; give a whole number of at least 2"),
        (lambda: Agent("A2C", clip_range=0.2), "Agent: clip_range belong to PPO, and the algorithm is A2C"),
        (lambda: Agent("A2C", clip_range_vf=0.2), "Agent: clip_range_vf belong to PPO, and the algorithm is A2C"),
        (lambda: Agent("A2C", n_epochs=2, batch_size=8), "n_epochs, batch_size belong to PPO"),
        (lambda: Expert(lambda env: env), "Expert: a lambda has no name"),
        (lambda: Expert(5), "Expert: 5 has no name"),
        (lambda: Expert(""), "the source is empty"),
        (lambda: Expert("a:"), "Expert: 'a:' is not of the form 'module:name'"),
        (lambda: Expert("a:b", episodes=0), "Expert('a:b'): episodes is 0"),
        (lambda: Expert("a:b", kind="oracle"), "kind is 'oracle'"),
        (lambda: Expert("a.zip", algorithm="P P O"), "algorithm is 'P P O'"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(make, said):
    with pytest.raises(InputError) as caught:
        make()
    assert said in str(caught.value) and "\n" not in str(caught.value)


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
    for wrong in ({"n_epochs": 0}, {"settings": {"n_epoch": 3}}, {"settings": 3}):
        with pytest.raises(InputError, match="stage 'a'"):
            dataclasses.replace(stage, **wrong)


def test_sizes_that_follow_from_the_algorithm():
    assert Agent("PPO", n_envs=4).rollout_steps == 512 and Agent("A2C", n_envs=4).rollout_steps == 32
    lambdas = [agent.algorithm.gae_lambda for agent in (Agent("PPO"), Agent("A2C"), Agent(gae_lambda=0.9))]
    assert lambdas == [0.95, 1.0, 0.9]


def test_settings_that_a2c_would_ignore_are_refused_in_stages_too():
    assert PPO().with_settings("stage 'a'", {"target_kl": 0.1}) == PPO(target_kl=0.1)
    with pytest.raises(InputError, match="stage 'a': target_kl belong to PPO"):
        A2C().with_settings("stage 'a'", {"target_kl": 0.1})
