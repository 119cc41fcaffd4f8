"""The choice of an engine for an agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import get_device

from rlstages.environments.spaces import describe_space
from rlstages.errors import require
from rlstages.specs.agent import Agent

# NumPy is faster for layers up to this width (docs/performance.md).
WIDEST = 512


@dataclass(frozen=True)
class Choice:
    """The name of an engine, and the reason for the choice as half a sentence."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_engine(agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Choice:
    """Return the engine for an agent.

    Raises:
        InputError: If the agent asks for an engine that does not support it.
    """
    if agent.engine == "torch":
        return Choice("torch", "as the agent says")
    obstacle = _obstacle(agent, observation_space, action_space)
    if agent.engine == "numpy":
        sentence = f"Agent: the engine 'numpy' does not serve {obstacle}; use 'auto' or 'torch'."
        require(obstacle is None, sentence, "setting-conflict", "Agent", "engine")
        return Choice("numpy", "as the agent says")
    return Choice("torch", f"for {obstacle}") if obstacle else Choice("numpy", "for small layers on the CPU")


def _obstacle(agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> str | None:
    """Return what the NumPy engine does not support, or `None`."""
    if agent.policy != "MlpPolicy":
        return agent.policy
    if get_device(agent.device).type != "cpu":
        return f"the device {agent.device}"
    if isinstance(observation_space, spaces.Box):
        if is_image_space(observation_space):
            return "images"
    elif not isinstance(observation_space, spaces.Discrete):
        return f"observations of {describe_space(observation_space)}"
    if not isinstance(action_space, (spaces.Discrete, spaces.MultiDiscrete, spaces.Box)):
        return f"actions of {describe_space(action_space)}"
    if isinstance(action_space, spaces.Box) and action_space.dtype != np.float32:
        return f"actions of {action_space.dtype}"
    widest = max(agent.network, default=0)
    return f"layers of {widest} units" if widest > WIDEST and agent.engine == "auto" else None
