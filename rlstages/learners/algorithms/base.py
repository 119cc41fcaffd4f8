"""What a run asks of an algorithm, and what stages add to its loss."""

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
    """A term of the loss that holds updates near a frozen policy.

    Args:
        policy: The reference policy, frozen.
        weight: Of KL(policy || reference) in the loss: the mean over a batch, summed over action dimensions, in nats.
    """

    policy: ActorCriticPolicy
    weight: float

    def loss(self, policy: ActorCriticPolicy, observations: Any) -> torch.Tensor:
        """Return the weighted term for a batch of observations.

        Args:
            policy: That learns.
            observations: Tensors, first axis the batch.
        """
        with torch.no_grad():
            reference = self.policy.get_distribution(observations)
        divergence = kl_divergence(policy.get_distribution(observations), reference)
        return self.weight * divergence.reshape(len(divergence), -1).sum(dim=1).mean()


@dataclass(frozen=True)
class DemonstrationLoss:
    """A term of the loss that makes demonstrated actions likelier (DAPG, arXiv:1709.10087).

    Args:
        observations: As the policy takes them, first axis the transitions.
        actions: As the policy gives them, first axis the transitions.
        weight: Of the mean negative log likelihood of a batch of actions in the loss, in nats.
    """

    observations: Observations
    actions: np.ndarray
    weight: float

    def draw(self, generator: np.random.Generator, batches: int, size: int) -> np.ndarray:
        """Return the rows of random batches, shape `(batches, min(size, transitions))`, none twice in a batch."""
        count = len(self.actions)
        return np.stack(
            [generator.choice(count, min(size, count), replace=False, shuffle=False) for _ in range(batches)]
        )

    def loss(self, policy: ActorCriticPolicy, observations: Any) -> torch.Tensor:
        """Return the weighted term for a random batch of demonstrations, as large as that of an algorithm's own.

        Args:
            policy: That learns.
            observations: Tensors of the algorithm's batch.
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
    """What the policy saw and did, to learn from."""

    observations: Any
    """First axis the states, once an update has gone over them."""

    @property
    def steps(self) -> int:
        """Environment steps in it."""

    def states(self) -> Any:
        """Return the observations, first axis the states; a dictionary of them by key where they have parts."""

    def taken(self) -> Mapping[str, Any]:
        """Return a copy as arrays by name."""

    def refill(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Hold several copies that `taken` returned, joined."""


class Algorithm(Protocol):
    """Acts and learns with one policy network, in all stages of a run.

    It is made with `(agent, observation_space, action_space, seed)`. Between two calls nothing is half-done.

    Attributes:
        model: An algorithm of stable-baselines3 that holds the network, for export.
        policy: The network.
        optimizers: Of the network's parameters, by name.
    """

    model: BaseAlgorithm

    @property
    def policy(self) -> ActorCriticPolicy: ...  # noqa: D102

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]: ...  # noqa: D102

    @classmethod
    def check(cls, agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> str:
        """Return what computes, in a few words for people; refuse spaces that it cannot learn in.

        Raises:
            InputError: Saying what to use instead.
        """

    def begin(self, env: VecEnv, state: Any = None) -> None:
        """Train in these environments from now on: from new episodes, or where `standing` said that it was."""

    def standing(self) -> Any:
        """Return where its environments stand: their observations, and whether each begins an episode there."""

    def collect(self, env: VecEnv, *, for_critic: bool = False) -> Any:
        """Act for the steps between two updates; return the experience.

        Args:
            env: The environments that it trains in.
            for_critic: Whether only the critic learns from it, whose own estimates are worth nothing yet.
        """

    def update(self, experience: Any, settings: Mapping[str, Any], terms: Sequence[LossTerm] = ()) -> dict[str, float]:
        """Learn from experience.

        Args:
            experience: What `collect` returned.
            settings: The values of the settings that stages may change, as they are at this moment.
            terms: Added to the loss; only kinds that the algorithm says it supports.

        Returns:
            Metrics by name.

        Raises:
            LossNotFinite: Before a step that would spoil the weights.
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
        """Make one pass over demonstrations by the loss of imitation's `BC`.

        Args:
            observations: As the policy takes them, first axis the transitions.
            actions: As the policy gives them, first axis the transitions.
            draw: Returns the rows of each gradient step of the pass.
            optimizer: Adam, of all parameters.
            entropy_weight: Of the mean entropy, which is raised.
            l2_weight: Of half the sum of all parameters' squares, which is lowered.

        Returns:
            Whether it did. An algorithm may leave that to imitation, and then it draws nothing.
        """

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return what acts as the policy does now, in episodes that nothing is learned from.

        Its draws depend on the seed alone, and move no other generator.

        Args:
            seed: Of the draws.
            deterministic: Whether it takes the likeliest action instead of sampling.

        Returns:
            A function from the observations of all environments to actions within the action space's bounds, as
            stable-baselines3's `predict` is: the same ones where it takes the likeliest, drawn alike where it samples.
        """

    def rebuild_optimizers(self) -> None:
        """Forget the optimisers' moments: they belong to another objective."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that acting and learning depend on besides the weights, as arrays and JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            InputError: If the state is another algorithm's.
        """


class FitsCritic(Algorithm, Protocol):
    """An algorithm that supports a critic fit: the critic learns before the policy does."""

    def critic_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that only the critic uses."""

    def explained(self, experience: Any) -> float:
        """Return the share of the returns' variance that the critic explains in experience."""

    def fit_critic(
        self, experience: Any, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
    ) -> dict[str, float]:
        """Fit the critic to the returns in experience; the actor and the shared features stay as they are.

        Args:
            experience: What `collect(env, for_critic=True)` returned.
            optimizer: Of the critic's parameters.
            settings: The values of the settings in force.

        Returns:
            Metrics by name, `explained_variance` among them: what `explained` says of the experience.
        """

    def trust_critic(self, experience: Any) -> None:
        """Make experience that was collected for the critic what it is for an update."""


def implementation_of(spec: AlgorithmSpec) -> Any:
    """Return the class that carries out an algorithm.

    Raises:
        InputError: If there is none by the name that the algorithm's spec gives.
    """
    return class_at(f"algorithm {spec.name}: its implementation", spec.implementation)
