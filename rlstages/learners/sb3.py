"""All uses of stable-baselines3's private names."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecEnv

from rlstages.learners.normalizer import NormalizedExtractor
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms import ppo as specs
from rlstages.specs.schedules import value_at

_EXTRACTORS = {"MlpPolicy": FlattenExtractor, "CnnPolicy": NatureCNN, "MultiInputPolicy": CombinedExtractor}


def build_model(
    agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any], seed: int
) -> OnPolicyAlgorithm:
    """Return stable-baselines3's algorithm for an agent, without an environment, with exactly this action space."""
    algorithm: Any = agent.algorithm
    policy_kwargs: dict[str, Any] = {
        "net_arch": {"pi": list(agent.network), "vf": list(agent.network)},
        "activation_fn": {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[agent.activation],
    }
    if isinstance(action_space, spaces.Box):
        policy_kwargs["log_std_init"] = agent.log_std_init
    if agent.normalize_observations:
        policy_kwargs["features_extractor_class"] = NormalizedExtractor
        policy_kwargs["features_extractor_kwargs"] = {"inner": _EXTRACTORS[agent.policy]}
    common: dict[str, Any] = {
        "learning_rate": value_at(algorithm.learning_rate, 0.0),
        "n_steps": algorithm.n_steps,
        "gamma": algorithm.gamma,
        "gae_lambda": algorithm.gae_lambda,
        "policy_kwargs": policy_kwargs,
        "seed": seed,
        "device": agent.device,
        "_init_setup_model": False,
    }
    model: OnPolicyAlgorithm
    if isinstance(algorithm, specs.PPO):
        model = PPO(agent.policy, None, batch_size=algorithm.batch_size, **common)  # type: ignore[arg-type]
    else:
        model = A2C(agent.policy, None, **common)  # type: ignore[arg-type]
    # stable-baselines3's own load() makes a model without an environment in the same way.
    model.observation_space, model.action_space, model.n_envs = observation_space, action_space, agent.n_envs
    model._setup_model()
    model.set_logger(Logger(None, []))
    return model


def copy_of(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """Return a policy with the same architecture and other weights, without drawing from the run's generators."""
    with torch.random.fork_rng():
        arguments = policy._get_constructor_parameters()
        return policy.__class__(**arguments).to(policy.device)


def set_up(model: OnPolicyAlgorithm, env: VecEnv, seen: Any = None, starts: np.ndarray | None = None) -> None:
    """Prepare a model for training in environments, like the beginning of `learn`.

    Args:
        model: Model that will train.
        env: Environments.
        seen: Current observations of the environments, or `None` for new episodes.
        starts: Whether each environment is at the beginning of an episode, shape `(n_envs,)`.
    """
    # The bounds of the model's observation space include those of all stages, but the model requires equal ones.
    env.observation_space = model.observation_space
    model.set_env(env)
    model._last_obs = seen
    if starts is not None:
        model._last_episode_starts = starts
    model._setup_learn(0, reset_num_timesteps=False)


def standing(model: OnPolicyAlgorithm) -> tuple[Any, Any]:
    """Return the current observations of a model's environments, and whether each begins an episode."""
    return model._last_obs, model._last_episode_starts


def stand(model: OnPolicyAlgorithm, seen: Any, starts: Any) -> None:
    """Record the current observations of a model's environments after a rollout."""
    model._last_obs, model._last_episode_starts = seen, starts
