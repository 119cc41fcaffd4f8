"""The reference engine: stable-baselines3's arithmetic in torch, for any policy, to the last bit.

Left out is what it does besides: distribution objects, a number taken out of torch for each diagnostic and minibatch,
copies of the buffer, and an optimiser that walks over the parameters one by one.
tests/learners/test_engines_torch.py holds it to the weights of stable-baselines3's own `learn()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn
from torch.nn import functional

from rlstages.learners.engines.engine import (
    NORM,
    Anchor,
    critic_parameters,
    explained,
    refuse_not_finite,
    summary,
)
from rlstages.learners.engines.flat import FlatOptimizer, FlatParameters
from rlstages.learners.engines.rollouts import flattened
from rlstages.learners.engines.torch_heads import torch_head
from rlstages.learners.normalizer import NormalizedExtractor

MEASURED_AT_ONCE = 4096


class TorchEngine:
    """Acts and learns with torch. It draws from torch's global generator, and permutes with NumPy's.

    Args:
        policy: Changed in place.
        algorithm: `"PPO"` or `"A2C"`.
    """

    name = "torch"

    def __init__(self, policy: ActorCriticPolicy, algorithm: str) -> None:
        self.policy = policy
        self._algorithm = algorithm
        self._head = torch_head(policy)
        extractor = policy.mlp_extractor
        self._actor, self._critic = layers_of(extractor.policy_net), layers_of(extractor.value_net)
        self._action, self._value = layers_of([policy.action_net]), layers_of([policy.value_net])
        self._device = policy.device
        self._shape = policy.action_space.shape or ()
        self._needs_no_parameters = _needs_no_parameters(policy)
        self._buffer: Any = None
        self._played: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        self._flat: FlatParameters | None = None
        self._optimizer: FlatOptimizer | None = None

    # --- acting ------------------------------------------------------------------------------------------------

    def begin_rollout(self, buffer: RolloutBuffer) -> None:
        """Make ready to play."""
        self.policy.set_training_mode(False)
        self._buffer = buffer
        self._played = [], []

    def act(self, step: int, observations: Any) -> np.ndarray:
        """Sample actions, and keep their log probabilities and the values."""
        with torch.no_grad():
            features: Any = self.policy.extract_features(obs_as_tensor(observations, self._device))
            latent_pi, latent_vf = self._actor(features), self._critic(features)
            values = self._value(latent_vf)
            actions, log_prob = self._head.sample(self._action(latent_pi))
        self._played[0].append(values)
        self._played[1].append(log_prob)
        return actions.cpu().numpy().reshape(-1, *self._shape)

    def end_rollout(self, cut_short: Sequence[Any], last: Any) -> np.ndarray:
        """Return the values of single observations, one by one as stable-baselines3 does, and of the last ones."""
        policy, buffer = self.policy, self._buffer
        for kept, parts in zip((buffer.values, buffer.log_probs), self._played, strict=True):
            kept[:] = torch.stack(parts).cpu().numpy().reshape(kept.shape)
        with torch.no_grad():
            singles = [policy.predict_values(policy.obs_to_tensor(observation)[0]) for observation in cut_short]
            values = [*singles, policy.predict_values(obs_as_tensor(last, policy.device))]
        return np.concatenate([value.cpu().numpy().reshape(-1) for value in values])

    # --- learning ----------------------------------------------------------------------------------------------

    def update(
        self, buffer: RolloutBuffer, settings: Mapping[str, Any], anchor: Anchor | None = None
    ) -> dict[str, float]:
        """Learn from one rollout; see `Engine.update`."""
        policy = self.policy
        policy.set_training_mode(True)
        flat, optimizer = self._flattened_policy()
        for group in policy.optimizer.param_groups:
            group["lr"] = settings["learning_rate"]
        data = _Data(self, buffer, anchor)
        ppo = self._algorithm == "PPO"
        log: dict[str, list[torch.Tensor]] = {}
        try:
            for batch in data.batches(settings["n_epochs"] if ppo else 1, settings["batch_size"] if ppo else None):
                loss, approx_kl = self._loss(batch, settings, anchor, log)
                if approx_kl is not None and approx_kl.item() > 1.5 * settings["target_kl"]:
                    break
                self._step(flat, optimizer, loss, settings["max_grad_norm"])
        finally:
            optimizer.publish()
        return summary(policy, buffer, {name: float(torch.stack(rows).mean()) for name, rows in log.items()}, settings)

    def fit_critic(
        self, buffer: RolloutBuffer, optimizer: torch.optim.Optimizer, epochs: int, batch_size: int
    ) -> dict[str, float]:
        """Fit the critic; see `Engine.fit_critic`."""
        policy = self.policy
        policy.set_training_mode(True)
        parameters = critic_parameters(policy)
        losses = []
        for batch in _Data(self, buffer, None).batches(epochs, batch_size):
            with torch.no_grad():
                features: Any = batch.features()
            values = self._value(self._critic(features)).flatten()
            loss = functional.mse_loss(batch.returns, values)
            refuse_not_finite(loss.item())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            refuse_not_finite(torch.nn.utils.clip_grad_norm_(parameters, 0.5).item(), NORM)
            optimizer.step()
            losses.append(loss.item())
        return {"value_loss": float(np.mean(losses)), "explained_variance": explained(buffer)}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the global generators' states are the learner's."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""

    # --- pieces ------------------------------------------------------------------------------------------------

    def raw(self, policy: ActorCriticPolicy, features: Any) -> torch.Tensor:
        """Return what a policy's last layer gives for features."""
        return policy.action_net(policy.mlp_extractor.forward_actor(features))  # type: ignore[no-any-return]

    def _loss(
        self, batch: _Batch, settings: Mapping[str, Any], anchor: Anchor | None, log: dict[str, list[torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the loss, and how far the policy has moved if that may end the update."""
        target = settings.get("target_kl")
        features = batch.features()
        latent_pi, latent_vf = self._actor(features), self._critic(features)
        raw = self._action(latent_pi)
        log_prob, entropy = self._head.evaluate(raw, batch.actions, settings["ent_coef"] != 0)
        values = self._value(latent_vf).flatten()
        advantages = batch.advantages
        approx_kl = None
        noted = {}
        if self._algorithm == "PPO":
            if len(advantages) > 1:
                advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            clip_range = settings["clip_range"]
            ratio = torch.exp(log_prob - batch.old_log_prob)
            clipped = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
            policy_loss = -torch.min(advantages * ratio, clipped).mean()
            with torch.no_grad():
                log_ratio = log_prob - batch.old_log_prob
                approx_kl = torch.mean((torch.exp(log_ratio) - 1) - log_ratio)
                noted = {"approx_kl": approx_kl, "clip_fraction": ((ratio - 1).abs() > clip_range).float().mean()}
        else:
            policy_loss = -(advantages * log_prob).mean()
        value_loss = functional.mse_loss(batch.returns, values)
        entropy_loss = -torch.mean(entropy)
        loss = policy_loss + settings["ent_coef"] * entropy_loss + settings["vf_coef"] * value_loss
        if anchor is not None:
            assert batch.reference is not None
            divergence = self._head.divergence(raw, batch.reference, anchor.policy).mean()
            loss = loss + anchor.weight * divergence
            noted["anchor_kl"] = divergence
        noted |= {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": -entropy_loss}
        for name, value in noted.items():
            log.setdefault(name, []).append(value.detach())
        return loss, None if target is None else approx_kl

    def _step(self, flat: FlatParameters, optimizer: FlatOptimizer, loss: torch.Tensor, max_grad_norm: float) -> None:
        refuse_not_finite(loss.item())
        flat.zero_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        # As clip_grad_norm_ does: the norm of the parameters' norms.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(flat.gradient_views, 2.0)), 2.0)
        refuse_not_finite(norm.item(), NORM)
        flat.gradients.mul_(torch.clamp(max_grad_norm / (norm + 1e-6), max=1.0))
        optimizer.step()

    def _flattened_policy(self) -> tuple[FlatParameters, FlatOptimizer]:
        if self._flat is None:
            self._flat = FlatParameters(list(self.policy.parameters()))
        optimizer = self._optimizer
        if optimizer is None or optimizer.optimizer is not self.policy.optimizer or not optimizer.in_force:
            self._optimizer = optimizer = FlatOptimizer(self.policy.optimizer, self._flat)
        return self._flat, optimizer


class _Batch(NamedTuple):
    """Rows of a rollout: `observations` are features already where no parameter is needed for that."""

    policy: ActorCriticPolicy
    observations: Any
    are_features: bool
    actions: torch.Tensor
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    reference: torch.Tensor | None

    def features(self) -> Any:
        """Return what the policy's layers see."""
        return self.observations if self.are_features else self.policy.extract_features(self.observations)


class _Data:
    """A rollout as tensors, in random batches."""

    def __init__(self, engine: TorchEngine, buffer: RolloutBuffer, anchor: Anchor | None) -> None:
        kept: Any = flattened(buffer)
        self._policy, device = engine.policy, engine._device
        self._size = len(kept.advantages)
        self._observations: Any = obs_as_tensor(kept.observations, device)
        self._actions = engine._head.actions(torch.as_tensor(kept.actions, device=device))
        columns = [kept.log_probs, kept.advantages, kept.returns]
        self._columns = torch.as_tensor(np.stack([column.reshape(-1) for column in columns]), device=device)
        self._reference: torch.Tensor | None = None
        self._are_features = engine._needs_no_parameters
        with torch.no_grad():
            if anchor is not None:
                rows = torch.split(torch.arange(self._size, device=device), MEASURED_AT_ONCE)
                seen = (anchor.policy.extract_features(_take(self._observations, some)) for some in rows)
                self._reference = torch.cat([engine.raw(anchor.policy, features) for features in seen])
            if self._are_features:
                self._observations = self._policy.extract_features(self._observations)

    def batches(self, epochs: int, batch_size: int | None) -> Iterator[_Batch]:
        """Yield batches in the order that stable-baselines3's buffer draws from NumPy's global generator."""
        for _ in range(epochs):
            order = torch.as_tensor(np.random.permutation(self._size), device=self._columns.device)
            for rows in torch.split(order, batch_size or self._size):
                old_log_prob, advantages, returns = self._columns.index_select(1, rows).unbind(0)
                yield _Batch(
                    self._policy,
                    _take(self._observations, rows),
                    self._are_features,
                    self._actions.index_select(0, rows),
                    old_log_prob,
                    advantages,
                    returns,
                    None if self._reference is None else self._reference.index_select(0, rows),
                )


def layers_of(modules: Iterable[nn.Module]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what a row of layers computes, without the modules' own bookkeeping where they are simple."""
    steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
    for module in modules:
        if type(module) is nn.Linear:
            steps.append(partial(_linear, weight=module.weight, bias=module.bias))
        else:
            steps.append({nn.Tanh: torch.tanh, nn.ReLU: torch.relu}.get(type(module), module))

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        for step in steps:
            inputs = step(inputs)
        return inputs

    return compute


def _linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.linear(inputs, weight, bias)


def _take(observations: Any, rows: torch.Tensor) -> Any:
    if isinstance(observations, dict):
        return {key: value.index_select(0, rows) for key, value in observations.items()}
    return observations.index_select(0, rows)


def _needs_no_parameters(policy: ActorCriticPolicy) -> bool:
    """Say whether the features of a whole rollout can be kept: vectors, and nothing there that learns."""
    extractor: Any = policy.features_extractor
    if isinstance(extractor, NormalizedExtractor):
        extractor = extractor.inner
    space = policy.observation_space
    vectors = isinstance(space, spaces.Box) and not is_image_space(space)
    return vectors and isinstance(extractor, FlattenExtractor)
