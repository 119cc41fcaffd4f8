"""What a fine-tuning stage asks of an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import explained_variance

from rlstages.errors import Fault
from rlstages.learners.algorithms.base import LossTerm

if TYPE_CHECKING:
    from rlstages.learners.algorithms.on_policy.rollout import Rollout


class LossNotFinite(Fault):
    """The loss or its gradient is NaN or infinite; the policy has not been changed by it.

    Args:
        number: Which it is.
        name: What it is.
    """

    def __init__(self, number: float, name: str = "The loss") -> None:
        sentence = f"{name} is {number}; lower the learning rate, or look for huge rewards or observations."
        super().__init__(sentence, "loss-not-finite", value=number)


def refuse_not_finite(number: float, name: str = "The loss") -> None:
    """Raise `LossNotFinite` for what would spoil the weights."""
    if not math.isfinite(number):
        raise LossNotFinite(number, name)


NORM = "The gradient's norm"
"""A finite loss can have gradients that are not, and clipping those makes all of them NaN."""


class Engine(Protocol):
    """Acts and learns with one policy, whose weights and optimiser state are always the policy's own.

    Attributes:
        name: `"torch"` or `"numpy"`.
    """

    name: str

    def begin_rollout(self, buffer: Rollout) -> None:
        """Make ready to play a rollout that is kept in an empty buffer."""

    def act(self, step: int, observations: Any) -> np.ndarray:
        """Return an action for each copy, as the policy samples them.

        Args:
            step: Of the rollout.
            observations: Of all copies; stored in the buffer by the caller.
        """

    def end_rollout(self, cut_short: Sequence[Any], last: Any) -> np.ndarray:
        """Fill in the buffer's values and log probabilities.

        Args:
            cut_short: The last observations of episodes that ended by a limit of time.
            last: The observations after the rollout, of all copies.

        Returns:
            The values of `cut_short`, then those of `last`.
        """

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return what acts as the policy does now, in episodes that nothing is learned from.

        Its draws depend on the seed alone, and move no other generator.

        Args:
            seed: Of the draws.
            deterministic: Whether it takes the likeliest action instead of sampling.

        Returns:
            A function from the observations of all copies to actions within the action space's bounds, as
            stable-baselines3's `predict` is: the same ones where it takes the likeliest, drawn alike where it samples.
        """

    def update(
        self,
        buffer: Rollout,
        settings: Mapping[str, Any],
        terms: Sequence[LossTerm] = (),
    ) -> dict[str, float]:
        """Learn from one rollout: PPO (arXiv:1707.06347) or A2C (arXiv:1602.01783).

        Args:
            buffer: A full rollout with advantages and returns.
            settings: `learning_rate`, `ent_coef`, `vf_coef`, `max_grad_norm`; for PPO also `clip_range`, `n_epochs`,
                `batch_size` and perhaps `clip_range_vf` and `target_kl`.
            terms: Added to the loss; demonstrations over a random batch for each gradient step, as large as its own.

        Returns:
            Diagnostics by name, means over the minibatches.

        Raises:
            LossNotFinite: Before a step that would spoil the weights.
        """

    def fit_critic(
        self, buffer: Rollout, optimizer: torch.optim.Optimizer, epochs: int, batch_size: int
    ) -> dict[str, float]:
        """Fit the critic to a rollout's returns; the actor and the shared features stay as they are.

        Args:
            buffer: A full rollout with returns.
            optimizer: Adam, of the critic's parameters (`critic_parameters`).
            epochs: Passes over the rollout.
            batch_size: Of the gradient steps.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what the engine's random draws depend on, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


def within(space: gym.Space[Any], actions: np.ndarray) -> np.ndarray:
    """Return actions that are in their space: those of a Box clipped to its bounds, all others of its whole numbers."""
    if isinstance(space, spaces.Box):
        clipped: np.ndarray = np.clip(actions, space.low, space.high)
        return clipped
    return actions.astype(space.dtype, copy=False)


def critic_parameters(policy: ActorCriticPolicy) -> list[torch.nn.Parameter]:
    """Return the parameters that only the critic uses."""
    return [*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()]


def explained(buffer: Rollout) -> float:
    """Return the share of the returns' variance that the values of a rollout explain."""
    return float(explained_variance(buffer.values.flatten(), buffer.returns.flatten()))


def update_diagnostics(
    policy: ActorCriticPolicy, buffer: Rollout, means: dict[str, float], settings: Mapping[str, Any]
) -> dict[str, float]:
    """Return an update's diagnostics."""
    if hasattr(policy, "log_std"):
        means["std"] = float(torch.exp(policy.log_std).mean().item())
    return {**means, "explained_variance": explained(buffer), "learning_rate": settings["learning_rate"]}
