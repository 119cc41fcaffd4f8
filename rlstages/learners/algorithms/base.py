"""The protocol of algorithms, and the loss terms that stages add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from rlstages.demonstrations.episodes import Observations, take
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.base import AlgorithmSpec
from rlstages.specs.references import class_at

T = TypeVar("T")


@dataclass(frozen=True)
class ReferenceKL:
    """A loss term that keeps the policy near a frozen reference policy.

    Args:
        policy: Frozen reference policy.
        weight: Weight of KL(policy || reference) in the loss. The KL divergence is summed over action dimensions and
            averaged over the batch, in nats.
    """

    policy: ActorCriticPolicy
    weight: float

    def loss(self, policy: ActorCriticPolicy, observations: Any) -> torch.Tensor:
        """Return the weighted term for a batch of observations.

        Args:
            policy: Policy that is trained.
            observations: Tensors whose first axis is the batch.
        """
        with torch.no_grad():
            reference = self.policy.get_distribution(observations)
        divergence = kl_divergence(policy.get_distribution(observations), reference)
        return self.weight * divergence.reshape(len(divergence), -1).sum(dim=1).mean()


@dataclass(frozen=True)
class DemonstrationLoss:
    """A loss term that makes demonstrated actions likelier (DAPG, arXiv:1709.10087).

    Args:
        observations: Observations in the policy's form; the first axis is the transitions.
        actions: Actions in the policy's form; the first axis is the transitions.
        weight: Weight of the mean negative log likelihood of a batch of actions in the loss, in nats.
    """

    observations: Observations
    actions: np.ndarray
    weight: float

    def draw(self, generator: np.random.Generator, batches: int, size: int) -> np.ndarray:
        """Return the row numbers of random batches, shape `(batches, min(size, transitions))`.

        No row occurs twice in a batch.
        """
        count = len(self.actions)
        return np.stack(
            [generator.choice(count, min(size, count), replace=False, shuffle=False) for _ in range(batches)]
        )

    def loss(self, policy: ActorCriticPolicy, observations: Any) -> torch.Tensor:
        """Return the weighted term for a random batch of demonstrations, as large as the algorithm's own minibatch.

        Args:
            policy: Policy that is trained.
            observations: Tensors of the algorithm's minibatch.
        """
        size = len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
        # NumPy's global generator is part of a run's state.
        rows = self.draw(np.random.Generator(np.random.get_bit_generator()), 1, size)[0]  # type: ignore[attr-defined]
        shown, _ = policy.obs_to_tensor(take(self.observations, rows))
        actions = torch.as_tensor(self.actions[rows], device=policy.device)
        if isinstance(policy.action_space, (spaces.Box, spaces.MultiBinary)):
            actions = actions.float().reshape(len(rows), -1)
        return -self.weight * policy.get_distribution(shown).log_prob(actions).mean()


LossTerm = ReferenceKL | DemonstrationLoss


def term_of(terms: Sequence[LossTerm], kind: type[T]) -> T | None:
    """Return the term of one kind, or `None` if it is not among them."""
    return next((term for term in terms if isinstance(term, kind)), None)


class Experience(Protocol):
    """Transitions that an algorithm learns from."""

    observations: Any
    """Observations; after an update, their first axis is the states."""

    @property
    def steps(self) -> int:
        """Number of environment steps."""

    def states(self) -> Any:
        """Return the observations, or a dictionary of them for dictionary spaces; the first axis is the states."""

    def taken(self) -> Mapping[str, Any]:
        """Return a copy of the experience, as arrays by name."""

    def refill(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Replace the experience by the concatenation of several results of `taken`."""


class Algorithm(Protocol):
    """Acts and learns with one policy network, in all stages of a run.

    The constructor takes `(agent, observation_space, action_space, seed)`. Between two calls nothing is half-done.

    Attributes:
        model: Algorithm of stable-baselines3 that holds the network, for export.
        policy: Network of actor and critic.
    """

    model: BaseAlgorithm

    @property
    def policy(self) -> ActorCriticPolicy: ...  # noqa: D102

    @classmethod
    def check(cls, agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> str:
        """Return what computes actions and gradients, in a few words; refuse spaces that are not supported.

        Raises:
            InputError: If the spaces are not supported; the message says what to use instead.
        """

    def begin(self, env: VecEnv, state: Any = None) -> None:
        """Train in these environments from now on.

        Args:
            env: Training environments.
            state: Earlier result of `standing`, or `None` to begin new episodes.
        """

    def standing(self) -> Any:
        """Return the current observations of the environments, and whether each of them begins an episode."""

    def collect(self, env: VecEnv, *, for_critic: bool = False) -> Any:
        """Act for the steps between two updates, and return the experience.

        Args:
            env: Training environments.
            for_critic: Whether only the critic will learn from the experience. Its own estimates are then not used.
        """

    def update(self, experience: Any, settings: Mapping[str, Any], terms: Sequence[LossTerm] = ()) -> dict[str, float]:
        """Learn from experience.

        Args:
            experience: Result of `collect`.
            settings: Current values of the settings that stages may change.
            terms: Terms to add to the loss, only of kinds in the spec's `supports`.

        Returns:
            Metrics by name.

        Raises:
            LossNotFinite: If the loss or its gradient is not finite; the weights are unchanged.
        """

    def clone(
        self,
        observations: Observations,
        actions: np.ndarray,
        draw: Callable[[], Sequence[np.ndarray]],
        optimizer: torch.optim.Optimizer,
        entropy_weight: float,
        l2_weight: float,
    ) -> bool:
        """Make one pass over demonstrations with the loss of imitation's `BC`.

        Args:
            observations: Observations in the policy's form; the first axis is the transitions.
            actions: Actions in the policy's form; the first axis is the transitions.
            draw: Function that returns the row numbers of each gradient step of the pass.
            optimizer: Adam optimiser of all parameters.
            entropy_weight: Weight of the mean entropy, which is maximised.
            l2_weight: Weight of half the sum of squares of all parameters, which is minimised.

        Returns:
            `True`, or `False` to leave the pass to imitation. In that case nothing has been drawn.
        """

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function that acts like the current policy, for episodes that are not trained on.

        Its random draws depend only on the seed, and affect no other generator.

        Args:
            seed: Seed of the random draws.
            deterministic: Whether to take the likeliest action instead of sampling.

        Returns:
            A function from the observations of all environments to actions, clipped to the action space. Its likeliest
            actions equal those of stable-baselines3's `predict`; its samples have the same distribution.
        """

    def rebuild_optimizers(self) -> None:
        """Discard the optimisers' moments, because the objective changes."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything besides the weights that acting and learning depend on, as arrays and JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            InputError: If the state belongs to another algorithm.
        """


class FitsCritic(Algorithm, Protocol):
    """An algorithm that supports a critic fit: only the critic learns for a while."""

    def critic_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that only the critic uses."""

    def explained(self, experience: Any) -> float:
        """Return the explained variance: the share of the returns' variance that the critic predicts."""

    def fit_critic(
        self, experience: Any, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
    ) -> dict[str, float]:
        """Fit the critic to the returns; the actor and the shared features do not change.

        Args:
            experience: Result of `collect(env, for_critic=True)`.
            optimizer: Optimiser of the critic's parameters.
            settings: Current values of the settings.

        Returns:
            Metrics by name. `explained_variance` is the result of `explained` for the experience.
        """

    def trust_critic(self, experience: Any) -> None:
        """Prepare experience that was collected for a critic fit for a normal update."""


def implementation_of(spec: AlgorithmSpec) -> Any:
    """Return the class that implements an algorithm.

    Raises:
        InputError: If the class that the algorithm's spec names does not exist.
    """
    return class_at(f"algorithm {spec.name}", "implementation", spec.implementation)
