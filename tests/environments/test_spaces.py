import json
from collections import OrderedDict

import numpy as np
import pytest
from gymnasium import spaces
from refusing import refused

from rlstages import Agent
from rlstages.environments.spaces import describe_space, space_from_data, space_to_data
from rlstages.learners.fit import require_fit

SPACES = [
    spaces.Box(-1.0, 1.0, (3,)),
    spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    spaces.Box(np.array([-1.0, -np.inf], np.float32), np.array([0.1, np.inf], np.float32)),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(0, 2**53 + 1, (1,), np.int64),
    spaces.Box(0.0, 1.0, ()),
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiDiscrete([2, 3], start=[1, -1]),
    spaces.MultiBinary(5),
    spaces.MultiBinary([2, 3]),
    spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0.0, 1.0, (2,))}),
    spaces.Dict(OrderedDict([("z", spaces.Discrete(2)), ("a", spaces.Dict({"x": spaces.MultiBinary(2)}))])),
    spaces.MultiDiscrete([2, 3], dtype=np.uint8),
    spaces.MultiBinary((3,)),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_equal_from_strict_json(space):
    back = space_from_data(json.loads(json.dumps(space_to_data(space), allow_nan=False)))
    assert back == space and back.shape == space.shape and back.dtype == space.dtype
    if isinstance(space, spaces.Dict):
        assert list(back.spaces) == list(space.spaces)


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Tuple([spaces.Discrete(2)])], ids=str)
def test_spaces_that_cannot_be_learned_in_are_refused(space):
    with refused("spaces-unsupported"):
        space_to_data(space)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "Boxes"},
        {"kind": "Box"},
        {"kind": "Discrete", "n": 0, "start": 0},
        {"kind": "Box", "shape": [2], "dtype": "float33", "low": 0, "high": 1},
        {"kind": "Box", "shape": [2], "dtype": "float32", "low": [0], "high": 1},
        {"kind": "Dict", "spaces": 3},
        None,
    ],
)
def test_damaged_data_is_refused(data):
    with refused("file-damaged"):
        space_from_data(data)


def test_spaces_are_described_in_a_few_words():
    assert describe_space(SPACES[0]) == "Box(3,) of float32"
    assert describe_space(SPACES[6]) == "Discrete(4)"
    assert describe_space(spaces.Text(9)) == "Text(9)"
    assert describe_space(SPACES[13]) == "Dict(a: Discrete(2), b: Box(2,) of float32)"


def test_a_key_that_is_a_number_is_refused():
    observations = spaces.Dict({1: spaces.Box(0, 1, (1,))})
    agent = Agent("PPO", policy="MultiInputPolicy")
    with refused("spaces-unsupported", where="observations", name="1"):
        require_fit(agent, observations, spaces.Discrete(2))
