"""PPO and A2C, and the base class of on-policy algorithms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from rlstages.demonstrations.episodes import Observations
from rlstages.errors import require
from rlstages.learners.algorithms.base import LossTerm
from rlstages.learners.algorithms.on_policy.choice import choose_engine
from rlstages.learners.algorithms.on_policy.numpy.engine import NumpyEngine
from rlstages.learners.algorithms.on_policy.protocol import Engine, critic_parameters, explained
from rlstages.learners.algorithms.on_policy.rollout import DictRollout, Rollout, collect
from rlstages.learners.algorithms.on_policy.torch.engine import TorchEngine
from rlstages.learners.optimizers import load_optimizer_state, optimizer_state
from rlstages.learners.sb3 import build_model, set_up, standing
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.ppo import PPO
from rlstages.specs.schedules import value_at


class OnPolicy:
    """PPO or A2C, depending on the agent, computed by one of two engines.

    Args:
        agent: Algorithm, network and settings.
        observation_space: Observation space of the policy, with channels first in images.
        action_space: Action space of the policy.
        seed: Seed of the initial weights and of the engine's random draws.

    Attributes:
        model: Algorithm of stable-baselines3, which holds the network and the rollout.
    """

    def __init__(
        self, agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any], seed: int
    ) -> None:
        self._agent = agent
        self.model = build_model(agent, observation_space, action_space, seed)
        kind: Any = DictRollout if isinstance(observation_space, spaces.Dict) else Rollout
        size = self.model.n_steps, observation_space, action_space, self.model.device
        self.model.rollout_buffer = kind(*size, gamma=self.model.gamma, n_envs=agent.n_envs)
        self._seed = seed

    @classmethod
    def check(cls, agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> str:
        """Return the name of the engine and the reason for it; refuse an engine that does not support these spaces."""
        return str(choose_engine(agent, observation_space, action_space))

    @property
    def policy(self) -> ActorCriticPolicy:
        """The network."""
        return self.model.policy

    @cached_property
    def engine(self) -> Engine:
        """The engine that acts and computes gradients."""
        choice = choose_engine(self._agent, self.policy.observation_space, self.policy.action_space)
        ppo = isinstance(self._agent.algorithm, PPO)
        return NumpyEngine(self.policy, ppo, self._seed) if choice.name == "numpy" else TorchEngine(self.policy, ppo)

    # --- acting ------------------------------------------------------------------------------------------------

    def begin(self, env: VecEnv, state: Any = None) -> None:
        """Train in these environments from now on; see `Algorithm.begin`."""
        set_up(self.model, env, *(() if state is None else state))

    def standing(self) -> tuple[Any, np.ndarray]:
        """Return the current observations of the environments, and whether each begins an episode."""
        return standing(self.model)

    def collect(self, env: VecEnv, *, for_critic: bool = False) -> Rollout:
        """Play one rollout; see `Algorithm.collect`."""
        # With lambda 1, the targets are the returns and do not depend on the untrained critic.
        return collect(self.model, env, self.engine, 1.0 if for_critic else self._agent.algorithm.gae_lambda)

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function that acts like the current policy; see `Algorithm.player`."""
        return self.engine.player(seed, deterministic)

    # --- learning ----------------------------------------------------------------------------------------------

    def update(
        self, experience: Rollout, settings: Mapping[str, Any], terms: Sequence[LossTerm] = ()
    ) -> dict[str, float]:
        """Learn from a rollout; see `Algorithm.update`."""
        return self.engine.update(experience, settings, terms)

    def clone(
        self,
        observations: Observations,
        actions: np.ndarray,
        draw: Callable[[], Sequence[np.ndarray]],
        optimizer: torch.optim.Optimizer,
        entropy_weight: float,
        l2_weight: float,
    ) -> bool:
        """Make one pass over demonstrations if the engine is NumPy's; see `Algorithm.clone`."""
        if not isinstance(self.engine, NumpyEngine):
            return False
        assert not isinstance(observations, dict)
        self.engine.clone(observations, actions, draw(), optimizer, entropy_weight, l2_weight)
        return True

    def critic_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that only the critic uses."""
        return critic_parameters(self.policy)

    def explained(self, experience: Rollout) -> float:
        """Return the explained variance of a rollout; see `FitsCritic.explained`."""
        return explained(experience)

    def fit_critic(
        self, experience: Rollout, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
    ) -> dict[str, float]:
        """Fit the critic to a rollout's returns; see `FitsCritic.fit_critic`."""
        return self.engine.fit_critic(
            experience, optimizer, settings.get("n_epochs", 10), settings.get("batch_size", 256)
        )

    def trust_critic(self, experience: Rollout) -> None:
        """Recompute the advantages with the agent's lambda, which uses the critic's estimates."""
        experience.estimate_advantages(self._agent.algorithm.gamma, self._agent.algorithm.gae_lambda)

    def rebuild_optimizers(self) -> None:
        """Discard the optimiser's moments."""
        rate = value_at(self._agent.algorithm.learning_rate, 0.0)
        policy = self.policy
        make: Any = policy.optimizer_class
        policy.optimizer = make(policy.parameters(), lr=rate, **policy.optimizer_kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the optimiser and the engine."""
        return {"optimizer": optimizer_state(self.policy.optimizer), "engine": self.engine.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_optimizer_state(self.policy.optimizer, state["optimizer"])
        same = set(state["engine"]) == set(self.engine.state_dict())
        name = self.engine.name
        sentence = f"The checkpoint is another engine's than {name!r}; name it in Agent(engine=...)."
        require(same, sentence, "policy-misfit", "Agent", "engine")
        self.engine.load_state_dict(state["engine"])
