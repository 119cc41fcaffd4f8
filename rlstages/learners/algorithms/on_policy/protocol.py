"""The protocol of engines, which act and compute gradients."""

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
    """The loss or its gradient is NaN or infinite. The policy is unchanged.

    Args:
        number: The value that is not finite.
        name: Name of the value.
    """

    def __init__(self, number: float, name: str = "The loss") -> None:
        sentence = f"{name} is {number}; lower the learning rate, or look for huge rewards or observations."
        super().__init__(sentence, "loss-not-finite", value=number)


def refuse_not_finite(number: float, name: str = "The loss") -> None:
    """Raise `LossNotFinite` if a number is not finite."""
    if not math.isfinite(number):
        raise LossNotFinite(number, name)


NORM = "The gradient's norm"
"""The gradient of a finite loss may be infinite, and clipping its norm would then make all of it NaN."""


class Engine(Protocol):
    """Acts and learns with one policy. Weights and optimiser state are always those of the policy object.

    Attributes:
        name: `"torch"` or `"numpy"`.
    """

    name: str

    def begin_rollout(self, buffer: Rollout) -> None:
        """Prepare for a rollout that will be stored in an empty buffer."""

    def act(self, step: int, observations: Any) -> np.ndarray:
        """Sample an action for each environment.

        Args:
            step: Index of the step in the rollout.
            observations: Observations of all environments. The caller stores them in the buffer.
        """

    def end_rollout(self, cut_short: Sequence[Any], last: Any) -> np.ndarray:
        """Compute the values and log probabilities of the buffer.

        Args:
            cut_short: Last observations of truncated episodes.
            last: Observations of all environments after the rollout.

        Returns:
            Values of `cut_short`, followed by those of `last`.
        """

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function that acts like the current policy; see `Algorithm.player`."""

    def update(
        self,
        buffer: Rollout,
        settings: Mapping[str, Any],
        terms: Sequence[LossTerm] = (),
    ) -> dict[str, float]:
        """Learn from one rollout: PPO (arXiv:1707.06347) or A2C (arXiv:1602.01783).

        Args:
            buffer: Full rollout with advantages and returns.
            settings: `learning_rate`, `ent_coef`, `vf_coef`, `max_grad_norm`; for PPO also `clip_range`, `n_epochs`,
                `batch_size` and perhaps `clip_range_vf` and `target_kl`.
            terms: Terms to add to the loss. Demonstrations are drawn anew for each gradient step, as many as the
                minibatch has rows.

        Returns:
            Diagnostics by name, as means over the minibatches.

        Raises:
            LossNotFinite: If the loss or its gradient is not finite; the weights are unchanged by that step.
        """

    def fit_critic(
        self, buffer: Rollout, optimizer: torch.optim.Optimizer, epochs: int, batch_size: int
    ) -> dict[str, float]:
        """Fit the critic to the returns of a rollout; the actor and the shared features do not change.

        Args:
            buffer: Full rollout with returns.
            optimizer: Adam optimiser of the critic's parameters (`critic_parameters`).
            epochs: Number of passes over the rollout.
            batch_size: Rows per minibatch.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the engine's random draws, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def within(space: gym.Space[Any], actions: np.ndarray) -> np.ndarray:
    """Clip actions to a Box, or cast them to the integer type of any other space."""
    if isinstance(space, spaces.Box):
        clipped: np.ndarray = np.clip(actions, space.low, space.high)
        return clipped
    return actions.astype(space.dtype, copy=False)


def critic_parameters(policy: ActorCriticPolicy) -> list[torch.nn.Parameter]:
    """Return the parameters that only the critic uses."""
    return [*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()]


def explained(buffer: Rollout) -> float:
    """Return the share of the returns' variance that the values of a rollout explain (at most 1)."""
    return float(explained_variance(buffer.values.flatten(), buffer.returns.flatten()))


def update_diagnostics(
    policy: ActorCriticPolicy, buffer: Rollout, means: dict[str, float], settings: Mapping[str, Any]
) -> dict[str, float]:
    """Return the diagnostics of an update: the given means, and what can be read from policy and buffer."""
    if hasattr(policy, "log_std"):
        means["std"] = float(torch.exp(policy.log_std).mean().item())
    return {**means, "explained_variance": explained(buffer), "learning_rate": settings["learning_rate"]}
