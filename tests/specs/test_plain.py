"""Values as other tools give them: NumPy, YAML, configuration libraries."""

import enum
from collections import UserDict, deque
from collections.abc import MutableSequence
from pathlib import Path

import numpy as np
import pytest
from refusing import refused

from rlstages import (
    Agent,
    BehaviorCloning,
    Curriculum,
    Environment,
    Expert,
    FineTuning,
    Linear,
    RewardThreshold,
    SuccessThreshold,
    load_curriculum,
)
from rlstages.specs.plain import thaw
from rlstages.specs.serialization import digest


class ConfigList(MutableSequence):
    """A list that is none to Python, as OmegaConf's."""

    def __init__(self, items):
        self.items = list(items)

    def __getitem__(self, index):
        return self.items[index]

    def __setitem__(self, index, value):
        self.items[index] = value

    def __delitem__(self, index):
        del self.items[index]

    def __len__(self):
        return len(self.items)

    def insert(self, index, value):
        self.items.insert(index, value)


class Word(str, enum.Enum):
    PPO = "PPO"
    subprocess = "subprocess"
    relu = "relu"


POLE, SURE = Environment("CartPole-v1"), RewardThreshold(100)
GIVEN = [
    (Agent(network=np.array([64, 32])), Agent(network=[64, 32])),
    (Agent(network=ConfigList([64.0, np.int32(32)])), Agent(network=[64, 32])),
    (Agent(network=range(8, 10)), Agent(network=[8, 9])),
    (Agent(Word.PPO, activation=Word.relu), Agent("PPO", activation="relu")),
    (Agent(n_envs=np.int64(8), n_steps=64.0, n_epochs=np.float32(4)), Agent(n_envs=8, n_steps=64, n_epochs=4)),
    (Agent(gamma=np.float64(0.9), normalize_rewards=np.bool_(True)), Agent(gamma=0.9, normalize_rewards=True)),
    (Agent(learning_rate=Linear(np.float64(1e-3), 0)), Agent(learning_rate=Linear(1e-3, 0))),
    (
        FineTuning("a", POLE, until=SURE, max_steps=1e5, rehearse=np.float64(0.5), max_returns=np.int8(3)),
        FineTuning("a", POLE, until=SURE, max_steps=100_000, rehearse=0.5, max_returns=3),
    ),
    (
        BehaviorCloning("a", POLE, demonstrations=Path("x"), best=10.0, min_return=np.float64(3), batch_size=32.0),
        BehaviorCloning("a", POLE, demonstrations="x", best=10, min_return=3.0, batch_size=32),
    ),
    (Expert("a:b", episodes=np.int64(5)), Expert("a:b", episodes=5)),
    (SuccessThreshold(np.float64(0.5), window=4e1), SuccessThreshold(0.5, window=40)),
    (RewardThreshold(np.float32(100), max_episodes=1e2), RewardThreshold(100.0, max_episodes=100)),
    (
        Environment("a", wrappers=ConfigList(["b:c"]), success=np.float32(2), vectorize=Word.subprocess),
        Environment("a", wrappers=["b:c"], success=2.0, vectorize="subprocess"),
    ),
    (Environment("a", x=ConfigList([1, UserDict(y=2)])), Environment("a", x=[1, {"y": 2}])),
    (Environment("a", kwargs=UserDict(kwargs=np.float64(1))), Environment("a", kwargs={"kwargs": 1.0})),
]


@pytest.mark.parametrize("given, plainly", GIVEN)
def test_values_of_other_tools_are_kept_as_pythons_own(given, plainly):
    assert given == plainly and repr(given) == repr(plainly)
    assert digest(given) == digest(plainly)


def test_a_curriculum_takes_lists_of_any_kind():
    stages = [FineTuning("a", POLE, until=SURE, max_steps=100_000)]
    given = Curriculum("x", agent=Agent(), stages=ConfigList(stages), held_out=(POLE,), retention_share=np.float64(0.1))
    assert given == Curriculum("x", agent=Agent(), stages=stages, held_out=[POLE], retention_share=0.1)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Agent(n_envs=True), ("setting-type", "Agent", "n_envs")),
        (lambda: Agent(n_envs=np.bool_(True)), ("setting-type", "Agent", "n_envs")),
        (lambda: Agent(n_envs=8.5), ("setting-type", "Agent", "n_envs")),
        (lambda: Agent(n_envs="8"), ("setting-type", "Agent", "n_envs")),
        (lambda: Agent(learning_rate="3e-4"), ("setting-type", "PPO", "learning_rate")),
        (lambda: Agent(network={8}), ("setting-type", "Agent", "network")),
        (lambda: Agent(network=np.zeros((2, 2))), ("setting-type", "Agent", "network")),
        (lambda: Environment("a", x=np.zeros(2)), ("setting-type", "Environment('a')", "")),
        (lambda: Environment("a", x=Path("b.xml")), ("setting-type", "Environment('a')", "")),
        (lambda: Environment("a", x=range(3)), ("setting-type", "Environment('a')", "")),
        (lambda: Environment("a", x=deque([1])), ("setting-type", "Environment('a')", "")),
        (lambda: Environment("a", x=b"1"), ("setting-type", "Environment('a')", "")),
        (lambda: Environment("a", kwargs={3: 1}), ("setting-type", "Environment('a')", "kwargs")),
    ],
)
def test_what_could_mean_something_else_is_refused(make, said):
    with refused(*said):
        make()


def test_an_environment_gets_lists_and_dictionaries_of_its_own():
    given = Environment("a", x={"size": (5, 7), "lanes": [1], 3: {}})
    first, second = thaw(given.kwargs), thaw(given.kwargs)
    first["x"]["lanes"].append(2)
    first["x"][3]["more"] = 1
    assert second == {"x": {"size": (5, 7), "lanes": [1], 3: {}}}


def test_parameters_of_a_curriculum_may_be_values(tmp_path):
    file = tmp_path / "valued.py"
    file.write_text(
        "from rlstages import *\n"
        "def curriculum(steps: int = 1, name: str = 'x') -> Curriculum:\n"
        "    stage = FineTuning('a', Environment('CartPole-v1'), until=RewardThreshold(9), max_steps=steps)\n"
        "    return Curriculum(name, agent=Agent(), stages=[stage])\n"
    )
    for steps in (200_000, 2e5, np.int64(200_000), "200000"):
        made = load_curriculum(str(file), {"steps": steps})
        assert repr(made.stages[0].max_steps) == "200000"
    with refused("setting-type", where="valued.py: steps"):
        load_curriculum(str(file), {"steps": 0.5})
