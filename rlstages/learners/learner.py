"""The learner, which owns the policy network through all stages."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import save as save_tensors
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim, get_flattened_obs_dim

from rlstages.environments.action_units import unit_space
from rlstages.errors import InputError, require, require_sound
from rlstages.learners.algorithms.base import Algorithm, implementation_of
from rlstages.learners.fit import require_fit
from rlstages.learners.sb3 import copy_of
from rlstages.reproducibility import random_state, set_random_state
from rlstages.specs.agent import Agent
from rlstages.storage.checkpoints import replace_durably, sha256
from rlstages.storage.untrusted import Tensors, read_bytes

Weights = dict[str, torch.Tensor]
MAX_POLICY = 2**30


class Learner:
    """Owns the policy network, its observation statistics, and the algorithm that trains it.

    The network is built once. Cloning trains `learner.policy` in place; the algorithm continues with the same object.

    Args:
        agent: Algorithm, network and settings.
        observation_space: Observation space of the policy, with channels first in images.
        action_space: Common action space of the curriculum's environments, in their own units.
        seed: Seed of Python, NumPy and torch.

    Attributes:
        action_space: Action space of the environments, in their own units. The policy acts in `units.unit_space` of it.
        algorithm: Algorithm that acts and learns with the policy.
        global_step: Environment steps of the whole run so far.
        objective: Objective that trained the policy last: `None`, `"cloning"` or `"reinforcement"`.
        trusted: Weights of the reference policy: the last policy that was cloned, passed a gate or was made to explore.
    """

    def __init__(
        self, agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any], seed: int
    ) -> None:
        self.agent = agent
        require_fit(agent, observation_space, action_space)
        self.action_space = action_space
        make = implementation_of(agent.algorithm)
        self.algorithm: Algorithm = make(agent, observation_space, unit_space(action_space), seed)
        self.global_step = 0
        self.objective: str | None = None
        self.trusted: Weights | None = None

    @property
    def policy(self) -> ActorCriticPolicy:
        """The policy network."""
        return self.algorithm.policy

    def weights(self) -> Weights:
        """Return a copy of the policy's weights and statistics."""
        return {name: value.detach().clone() for name, value in self.policy.state_dict().items()}

    def load_policy(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load weights and statistics into the same network object.

        Raises:
            InputError: If names, shapes or types differ from those of this network.
        """
        own = self.policy.state_dict()
        missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
        sentence = f"The policy has other parts than this agent's network: {(missing + extra)[:3]}."
        require(not missing and not extra, sentence, "policy-misfit", name="".join((missing + extra)[:1]))
        for name, value in own.items():
            same = value.shape == weights[name].shape and value.dtype == weights[name].dtype
            sentence = f"The policy's {name} is {tuple(weights[name].shape)}, this agent's {tuple(value.shape)}."
            require(same, sentence, "policy-misfit", name=name)
        self.policy.load_state_dict(weights)

    def save_policy(self, path: Path) -> str:
        """Write the policy's weights and statistics as safetensors and return the file's SHA-256."""
        return save_weights(self.weights(), path)

    def trust(self) -> None:
        """Make the current policy the reference policy of later stages."""
        self.trusted = self.weights()

    def hand_over(self) -> None:
        """Record that the policy was trained without rewards, so that the next stage begins with a hand-over."""
        self.objective = "cloning"
        self.trust()

    def reference_policy(self) -> ActorCriticPolicy | None:
        """Return a frozen copy of the last trusted policy, or `None` if there is none."""
        if self.trusted is None:
            return None
        copy = copy_of(self.policy)
        copy.load_state_dict(self.trusted)
        copy.set_training_mode(False)
        copy.requires_grad_(False)
        return copy

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers, counters and random states as arrays and JSON values."""
        return {
            "policy": arrays(self.weights()),
            "algorithm": self.algorithm.state_dict(),
            "trusted": None if self.trusted is None else arrays(self.trusted),
            "global_step": self.global_step,
            "objective": self.objective,
            "random": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.load_policy(tensors(state["policy"]))
        self.algorithm.load_state_dict(state["algorithm"])
        self.trusted = None if state["trusted"] is None else tensors(state["trusted"])
        self.global_step = state["global_step"]
        self.objective = state["objective"]
        set_random_state(state["random"])


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> str:
    """Write weights and statistics as safetensors and return the file's SHA-256."""
    # Copy, because parts of a policy may share memory, which the format does not support.
    content = save_tensors({name: value.detach().cpu().clone().contiguous() for name, value in weights.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, content)
    return sha256(content)


def read_policy(path: Path, digest: str | None = None) -> Weights:
    """Read a policy file.

    Args:
        path: Path of the file.
        digest: SHA-256 of the file, if it is known.

    Raises:
        InputError: If the file is missing, is not safetensors, or has another digest.
    """
    require(path.is_file(), f"The policy file {path} is missing.", "file-missing", path)
    try:
        content = read_bytes(path, MAX_POLICY)
        require_sound(digest in (None, sha256(content)), "it is not the file that the run wrote")
        file = Tensors(BytesIO(content), len(content))
        return tensors({name: file.read(name) for name in file.layouts})
    except (InputError, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).rstrip('.')}.", "file-damaged", path) from error


def require_network(
    agent: Agent,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Refuse weights that do not fit the network of an agent and spaces, before that network is built.

    Raises:
        InputError: If a layer is missing or has another size.
    """
    sizes = [get_flattened_obs_dim(observation_space) if agent.policy == "MlpPolicy" else None, *agent.network]
    wanted = {f"mlp_extractor.policy_net.{2 * i}.weight": (sizes[i + 1], sizes[i]) for i in range(len(agent.network))}
    wanted["action_net.weight"] = (_outputs(action_space), sizes[-1])
    for name, shape in wanted.items():
        found = tuple(weights[name].shape) if name in weights else ()
        fits = len(found) == 2 and all(want in (None, have) for want, have in zip(shape, found, strict=True))
        sentence = f"The policy's {name} is {found}, but the agent and its spaces describe a network with {shape}."
        require(fits, sentence, "policy-misfit", name=name)


def _outputs(action_space: gym.Space[Any]) -> int:
    if isinstance(action_space, spaces.Discrete):
        return int(action_space.n)
    if isinstance(action_space, spaces.MultiDiscrete):
        return int(action_space.nvec.sum())
    return get_action_dim(action_space)


def arrays(weights: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return tensors as NumPy arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in weights.items()}


def tensors(state: Mapping[str, np.ndarray]) -> Weights:
    """Return NumPy arrays as tensors."""
    return {name: torch.as_tensor(np.array(value)) for name, value in state.items()}
