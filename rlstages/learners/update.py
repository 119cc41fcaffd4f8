"""The gradient steps of PPO and A2C, with room for the anchor's KL term.

stable-baselines3's `train()` has no place for another loss term. These functions do what it does, operation by
operation: with the anchor off, the weights after an update are the same to the last bit
(tests/learners/test_update.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import Distribution, kl_divergence
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from torch.nn import functional

from rlstages.errors import Fault


class LossNotFinite(Fault):
    """The loss or its gradient is NaN or infinite; the policy has not been changed by it."""


class Anchor:
    """A frozen policy that updates are held near.

    Args:
        policy: The frozen copy.
        weight: Of the KL divergence from it in the loss.
    """

    def __init__(self, policy: ActorCriticPolicy, weight: float) -> None:
        self.policy = policy
        self.weight = weight

    def divergence(self, distribution: Distribution, observations: Any) -> torch.Tensor:
        """Return the mean over a batch of KL(policy || anchor), summed over action dimensions, in nats."""
        with torch.no_grad():
            reference = self.policy.get_distribution(observations)
        divergence = kl_divergence(distribution, reference)
        return divergence.reshape(len(divergence), -1).sum(dim=1).mean()


def ppo_update(
    policy: ActorCriticPolicy,
    buffer: RolloutBuffer,
    settings: Mapping[str, Any],
    learning_rate: float,
    clip_range: float,
    anchor: Anchor | None = None,
) -> dict[str, float]:
    """Update the policy on one rollout (arXiv:1707.06347).

    Args:
        policy: Changed in place, with its own optimiser.
        buffer: A full rollout with advantages and returns.
        settings: `n_epochs`, `batch_size`, `ent_coef`, `vf_coef`, `max_grad_norm`, and optionally `target_kl`.
        learning_rate: Of this update.
        clip_range: Of this update.
        anchor: Adds its KL term to the loss.

    Returns:
        Diagnostics by name, means over the minibatches.

    Raises:
        LossNotFinite: Before a step that would spoil the weights.
    """
    policy.set_training_mode(True)
    _set_learning_rate(policy.optimizer, learning_rate)
    target_kl = settings.get("target_kl")
    log: dict[str, list[float]] = {}
    for _ in range(settings["n_epochs"]):
        for batch in buffer.get(settings["batch_size"]):
            actions = _actions(policy, batch.actions)
            evaluated = evaluate_actions(policy, batch.observations, actions)
            log_prob = evaluated.log_prob
            advantages = batch.advantages
            if len(advantages) > 1:
                advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            ratio = torch.exp(log_prob - batch.old_log_prob)
            clipped = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
            policy_loss = -torch.min(advantages * ratio, clipped).mean()
            loss = _loss(policy_loss, batch, settings, evaluated, anchor, log)
            with torch.no_grad():
                log_ratio = log_prob - batch.old_log_prob
                approx_kl = torch.mean((torch.exp(log_ratio) - 1) - log_ratio).item()
                clip_fraction = torch.mean((torch.abs(ratio - 1) > clip_range).float())
            _note(log, approx_kl=approx_kl, clip_fraction=clip_fraction)
            if target_kl is not None and approx_kl > 1.5 * target_kl:
                return _summary(policy, buffer, log, learning_rate)
            _step(policy, loss, settings["max_grad_norm"])
    return _summary(policy, buffer, log, learning_rate)


def a2c_update(
    policy: ActorCriticPolicy,
    buffer: RolloutBuffer,
    settings: Mapping[str, Any],
    learning_rate: float,
    anchor: Anchor | None = None,
) -> dict[str, float]:
    """Update the policy on one rollout with one gradient step (arXiv:1602.01783).

    Args:
        policy: Changed in place, with its own optimiser.
        buffer: A full rollout with advantages and returns.
        settings: `ent_coef`, `vf_coef`, `max_grad_norm`.
        learning_rate: Of this update.
        anchor: Adds its KL term to the loss.

    Returns:
        Diagnostics by name.

    Raises:
        LossNotFinite: Before a step that would spoil the weights.
    """
    policy.set_training_mode(True)
    _set_learning_rate(policy.optimizer, learning_rate)
    log: dict[str, list[float]] = {}
    for batch in buffer.get(batch_size=None):
        actions = _actions(policy, batch.actions)
        evaluated = evaluate_actions(policy, batch.observations, actions)
        policy_loss = -(batch.advantages * evaluated.log_prob).mean()
        loss = _loss(policy_loss, batch, settings, evaluated, anchor, log)
        _step(policy, loss, settings["max_grad_norm"])
    return _summary(policy, buffer, log, learning_rate)


def fit_critic(
    policy: ActorCriticPolicy, buffer: RolloutBuffer, optimizer: torch.optim.Optimizer, epochs: int, batch_size: int
) -> dict[str, float]:
    """Fit the critic to a rollout's returns; the actor and the shared features stay as they are.

    Args:
        policy: Only its critic's own parameters change.
        buffer: A full rollout with returns.
        optimizer: Of the critic's parameters (`critic_parameters`).
        epochs: Passes over the rollout.
        batch_size: Of the gradient steps.
    """
    policy.set_training_mode(True)
    log: dict[str, list[float]] = {}
    for _ in range(epochs):
        for batch in buffer.get(batch_size):
            with torch.no_grad():
                features: Any = policy.extract_features(batch.observations)
            values = policy.value_net(policy.mlp_extractor.forward_critic(features)).flatten()
            loss = functional.mse_loss(batch.returns, values)
            _refuse_not_finite(loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            _refuse_not_finite(torch.nn.utils.clip_grad_norm_(critic_parameters(policy), 0.5), "The gradient's norm")
            optimizer.step()
            _note(log, value_loss=loss)
    means = {name: float(np.mean(values)) for name, values in log.items()}
    return {**means, "explained_variance": _explained(buffer)}


def critic_parameters(policy: ActorCriticPolicy) -> list[torch.nn.Parameter]:
    """Return the parameters that only the critic uses."""
    return [*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()]


class Evaluated(NamedTuple):
    """What a policy makes of `n` observations and actions.

    Attributes:
        distribution: Over actions.
        values: Shape `(n,)`.
        log_prob: Of the actions, shape `(n,)`.
        entropy: Shape `(n,)`, or `None` where there is no formula for it.
    """

    distribution: Distribution
    values: torch.Tensor
    log_prob: torch.Tensor
    entropy: torch.Tensor | None


def evaluate_actions(policy: ActorCriticPolicy, observations: Any, actions: torch.Tensor) -> Evaluated:
    """Do what `policy.evaluate_actions` does, and return the action distribution too."""
    features: Any = policy.extract_features(observations)
    latent_pi, latent_vf = policy.mlp_extractor(features)
    distribution = policy._get_action_dist_from_latent(latent_pi)
    log_prob = distribution.log_prob(actions)
    values = policy.value_net(latent_vf).flatten()
    return Evaluated(distribution, values, log_prob, distribution.entropy())


def _loss(
    policy_loss: torch.Tensor,
    batch: RolloutBufferSamples,
    settings: Mapping[str, Any],
    evaluated: Evaluated,
    anchor: Anchor | None,
    log: dict[str, list[float]],
) -> torch.Tensor:
    """Add the terms that PPO and A2C share: entropy, values, and the distance from the anchor."""
    value_loss = functional.mse_loss(batch.returns, evaluated.values)
    entropy = evaluated.entropy
    entropy_loss = -torch.mean(-evaluated.log_prob) if entropy is None else -torch.mean(entropy)
    loss: torch.Tensor = policy_loss + settings["ent_coef"] * entropy_loss + settings["vf_coef"] * value_loss
    if anchor is not None:
        divergence = anchor.divergence(evaluated.distribution, batch.observations)
        loss = loss + anchor.weight * divergence
        _note(log, anchor_kl=divergence)
    _note(log, policy_loss=policy_loss, value_loss=value_loss, entropy=-entropy_loss)
    return loss


def _actions(policy: ActorCriticPolicy, actions: torch.Tensor) -> torch.Tensor:
    return actions.long().flatten() if isinstance(policy.action_space, spaces.Discrete) else actions


def _set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _step(policy: ActorCriticPolicy, loss: torch.Tensor, max_grad_norm: float) -> None:
    _refuse_not_finite(loss)
    policy.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    # A finite loss can have gradients that are not, and clipping those makes all of them NaN.
    _refuse_not_finite(torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm), "The gradient's norm")
    policy.optimizer.step()


def _refuse_not_finite(number: torch.Tensor, name: str = "The loss") -> None:
    if not torch.isfinite(number):
        raise LossNotFinite(
            f"{name} is {number.item()}; lower the learning rate, or look for huge rewards or observations."
        )


def _note(log: dict[str, list[float]], **values: torch.Tensor | float) -> None:
    for name, value in values.items():
        log.setdefault(name, []).append(value.item() if isinstance(value, torch.Tensor) else value)


def _explained(buffer: RolloutBuffer) -> float:
    return float(explained_variance(buffer.values.flatten(), buffer.returns.flatten()))


def _summary(
    policy: ActorCriticPolicy, buffer: RolloutBuffer, log: Mapping[str, list[float]], learning_rate: float
) -> dict[str, float]:
    summary = {name: float(np.mean(values)) for name, values in log.items()}
    if hasattr(policy, "log_std"):
        summary["std"] = float(torch.exp(policy.log_std).mean().item())
    return {**summary, "explained_variance": _explained(buffer), "learning_rate": learning_rate}
