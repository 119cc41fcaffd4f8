"""Checks of observation and action spaces: those that the agent's policy does not support are refused."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from rlstages.environments.action_units import require_range, unit_space
from rlstages.environments.spaces import describe_space, spell_space
from rlstages.errors import require
from rlstages.learners.algorithms.base import implementation_of
from rlstages.learners.normalizer import is_vector
from rlstages.specs.agent import Agent

SMALLEST_IMAGE = 36
MOST_CHOICES = 256
"""Maximum number of options in one discrete dimension. For more, a continuous range is better."""
_FLATTEN = "use wrappers=['gymnasium.wrappers:FlattenObservation'] and policy='MlpPolicy'"
_RESERVED = torch.nn.ModuleDict()


def require_fit(agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse spaces that the agent's policy cannot take.

    Args:
        agent: Agent that has the policy.
        observation_space: Observation space of the policy, with channels first in images.
        action_space: Action space of the environment.

    Raises:
        InputError: If the policy does not support a space. The message names the space (in a dictionary, its key too)
            and says what to do instead.
    """
    seen = describe_space(observation_space)
    is_dict = isinstance(observation_space, spaces.Dict)
    wanted = agent.policy == "MultiInputPolicy"
    sentence = f"The observations are {seen}; use Agent(policy='MultiInputPolicy')."
    require(is_dict <= wanted, sentence, "setting-conflict", "Agent", "policy")
    sentence = f"The observations are {seen}, no dictionary; use policy='MlpPolicy' or 'CnnPolicy'."
    require(wanted <= is_dict, sentence, "setting-conflict", "Agent", "policy")
    if agent.policy == "CnnPolicy":
        image = isinstance(observation_space, spaces.Box) and observation_space.dtype == np.uint8
        large = image and _is_large(observation_space)
        sentence = f"The observations are {seen}; CnnPolicy needs uint8 images of at least 36 x 36 pixels."
        require(large, sentence, "setting-conflict", "Agent", "policy")
    if agent.normalize_observations:
        parts = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
        sentence = f"The observations are {seen}, with no vector to standardise; leave out normalize_observations."
        require(any(is_vector(part) for part in parts), sentence, "setting-conflict", "Agent", "normalize_observations")
    if isinstance(observation_space, spaces.Dict):
        sentence = "The observations are a dictionary without keys; nothing is seen."
        require(len(observation_space.spaces) > 0, sentence, "spaces-unsupported", "observations")
        for key, part in observation_space.spaces.items():
            _require_key(key, part)
    else:
        _require_part("The observations are", observation_space)
    require_actions(action_space)
    implementation_of(agent.algorithm).check(agent, observation_space, unit_space(action_space))


def _require_key(key: str, part: gym.Space[Any]) -> None:
    """Refuse a key of a dictionary space that the network cannot use, or whose space it cannot use."""
    plain = isinstance(key, str) and bool(key) and "." not in key and not hasattr(_RESERVED, key)
    sentence = f"The observations have the key {key!r}, which torch cannot name a part of a network; rename it."
    require(plain, sentence, "spaces-unsupported", "observations", str(key))
    where = f"The observations have {key!r},"
    small = is_image_space(part) and not _is_large(part)
    sentence = (
        f"{where} {describe_space(part)}, an image for MultiInputPolicy, which needs at least 36 x 36 pixels; make it "
        f"larger in a wrapper, or {_FLATTEN}."
    )
    require(not small, sentence, "spaces-unsupported", "observations", key)
    _require_part(where, part, key)


def _require_part(where: str, part: gym.Space[Any], key: str = "") -> None:
    """Refuse an observation space that stable-baselines3's policies do not support."""
    said = describe_space(part)
    _require_from_zero(where, part, f"wrap the environment so that it does, or {_FLATTEN}", "observations", key)
    shape = part.shape or ()
    has_axis = bool(shape) or isinstance(part, spaces.Discrete)
    sentence = f"{where} {said}, a number without an axis; give it the shape (1,), or {_FLATTEN}."
    require(has_axis, sentence, "spaces-unsupported", "observations", key)
    sentence = f"{where} {said}, which holds no number; leave it out."
    require(0 not in shape, sentence, "spaces-unsupported", "observations", key)
    flat = len(shape) == 1 or not isinstance(part, spaces.MultiDiscrete)
    sentence = f"{where} MultiDiscrete of the shape {shape}, which no policy takes; {_FLATTEN}."
    require(flat, sentence, "spaces-unsupported", "observations", key)


def require_actions(space: gym.Space[Any]) -> None:
    """Refuse action spaces that no policy supports.

    Raises:
        InputError: If the space is not supported. The message names it and says what to use instead.
    """
    said = describe_space(space)
    supported = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)
    sentence = (
        f"Actions of {said} are not supported; wrap the environment to take Discrete, MultiDiscrete, MultiBinary or "
        "a Box."
    )
    require(isinstance(space, supported), sentence, "spaces-unsupported", "actions")
    _require_from_zero("The actions are", space, "wrap the environment so that it does", "actions")
    shape = space.shape or ()
    sentence = f"The actions are {said}, which holds no number; there is nothing to learn."
    require(0 not in shape, sentence, "spaces-unsupported", "actions")
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        kind = type(space).__name__
        choices = space.nvec.reshape(-1).tolist() if isinstance(space, spaces.MultiDiscrete) else int(np.prod(shape))
        # stable-baselines3 requires a MultiBinary space with a plain number.
        flat = len(shape) == 1 and not (isinstance(space, spaces.MultiBinary) and np.ndim(space.n))
        sentence = (
            f"The actions are {kind} of the shape {shape}, which no policy gives; let a wrapper take "
            f"{kind}({choices}), and reshape its actions."
        )
        require(flat, sentence, "spaces-unsupported", "actions")
    if isinstance(space, spaces.Box):
        whole = np.dtype(space.dtype).kind != "f"
        sentence = (
            f"The actions are {said}, but a policy gives fractions to a Box; let a wrapper take {_counted(space)} "
            "instead."
        )
        require(not whole, sentence, "spaces-unsupported", "actions")
        require_range(space)


def _counted(space: spaces.Box) -> str:
    """Return the space to use instead of a Box of integers."""
    if space.dtype == np.bool_:
        return f"MultiBinary({int(np.prod(space.shape))})"
    low, high = space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist()
    choices = [most - least + 1 for least, most in zip(low, high, strict=True)]
    if max(choices) > MOST_CHOICES:
        return "a Box of float32, round its actions,"
    return f"MultiDiscrete({choices})" + (f", add {low}," if any(low) else "")


def _require_from_zero(begin: str, space: gym.Space[Any], remedy: str, where: str, key: str = "") -> None:
    from_zero = not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) or not np.any(space.start)
    sentence = f"{begin} {spell_space(space)}, which does not count from 0; {remedy}."
    require(from_zero, sentence, "spaces-unsupported", where, key)


def _is_large(image: gym.Space[Any]) -> bool:
    shape = image.shape or ()
    return len(shape) == 3 and min(sorted(shape)[1:]) >= SMALLEST_IMAGE
