"""The torch engine: stable-baselines3's arithmetic for any policy, bit for bit.

It is faster because it leaves out distribution objects, one transfer out of torch for each diagnostic and minibatch,
copies of the buffer, and the optimiser's loop over parameters. tests/learners/test_engines_torch.py compares its
weights with those of stable-baselines3's own `learn()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from torch.nn import functional

from rlstages.learners.algorithms.base import DemonstrationLoss, LossTerm, ReferenceKL, term_of
from rlstages.learners.algorithms.on_policy.flat import FlatOptimizer, FlatParameters
from rlstages.learners.algorithms.on_policy.protocol import (
    NORM,
    critic_parameters,
    explained,
    refuse_not_finite,
    update_diagnostics,
    within,
)
from rlstages.learners.algorithms.on_policy.rollout import Rollout
from rlstages.learners.algorithms.on_policy.torch.batches import Minibatches
from rlstages.learners.algorithms.on_policy.torch.features import tensor_features
from rlstages.learners.algorithms.on_policy.torch.heads import torch_head
from rlstages.learners.algorithms.on_policy.torch.loss import Objective
from rlstages.learners.algorithms.on_policy.torch.network import TorchNetwork, torch_network, towers_of


class TorchEngine:
    """Acts and learns with torch. It samples with torch's global generator, and shuffles with NumPy's.

    Args:
        policy: Policy, which is changed in place.
        ppo: Whether to use PPO's loss instead of A2C's.
    """

    name = "torch"

    def __init__(self, policy: ActorCriticPolicy, ppo: bool) -> None:
        self.policy = policy
        self._ppo = ppo
        self._head = torch_head(policy.action_space)
        self._actor, self._critic = towers_of(policy)
        self._device = policy.device
        self._shape = policy.action_space.shape or ()
        self._features = tensor_features(policy)
        self._buffer: Any = None
        self._seen: list[torch.Tensor] = []
        self._raw: list[torch.Tensor] = []
        self._flat: tuple[FlatParameters, TorchNetwork] | None = None
        self._optimizer: FlatOptimizer | None = None

    # --- acting ------------------------------------------------------------------------------------------------

    def begin_rollout(self, buffer: Rollout) -> None:
        """Prepare for a rollout."""
        self.policy.set_training_mode(False)
        self._buffer = buffer
        self._seen, self._raw = [], []

    def act(self, step: int, observations: Any) -> np.ndarray:
        """Sample actions, and keep the features and the actor's outputs for `end_rollout`."""
        with torch.inference_mode():
            features = self._features(obs_as_tensor(observations, self._device))
            raw = self._actor(features)
            # Copy, because the environment may write its next observations into the same memory.
            self._seen.append(features.clone())
            self._raw.append(raw)
            return self._array(self._head.draw(self._head.distribution(raw, self.policy), None))

    def end_rollout(self, cut_short: Sequence[Any], last: Any) -> np.ndarray:
        """Compute the values and log probabilities of the buffer; see `Engine.end_rollout`.

        Values are computed step by step, and one by one for single observations, as in stable-baselines3, because the
        rounding of matrix products depends on the number of rows.
        """
        policy, buffer, device = self.policy, self._buffer, self._device
        with torch.no_grad():
            values = [self._critic(features) for features in self._seen]
            raw = torch.cat(self._raw)
            actions = self._head.actions(torch.as_tensor(buffer.actions, device=device).reshape(len(raw), -1))
            log_prob = self._head.log_prob(self._head.distribution(raw, policy), actions)
            ends = [policy.predict_values(policy.obs_to_tensor(observation)[0]) for observation in cut_short]
            ends.append(policy.predict_values(obs_as_tensor(last, device)))
        self._seen, self._raw = [], []
        buffer.values[:] = torch.stack(values).cpu().numpy().reshape(buffer.values.shape)
        buffer.log_probs[:] = log_prob.cpu().numpy().reshape(buffer.log_probs.shape)
        return np.concatenate([value.cpu().numpy().reshape(-1) for value in ends])

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function that acts like the current policy; see `Algorithm.player`."""
        self.policy.set_training_mode(False)
        generator = torch.Generator(self._device).manual_seed(seed)

        def act(observations: Any) -> np.ndarray:
            with torch.no_grad():
                raw = self._actor(self._features(obs_as_tensor(observations, self._device)))
                given = self._head.distribution(raw, self.policy)
                actions = self._head.likeliest(given) if deterministic else self._head.draw(given, generator)
                return within(self.policy.action_space, self._array(actions))

        return act

    # --- learning ----------------------------------------------------------------------------------------------

    def update(
        self,
        buffer: Rollout,
        settings: Mapping[str, Any],
        terms: Sequence[LossTerm] = (),
    ) -> dict[str, float]:
        """Learn from one rollout; see `Engine.update`."""
        anchor, demonstrated = term_of(terms, ReferenceKL), term_of(terms, DemonstrationLoss)
        policy = self.policy
        policy.set_training_mode(True)
        # Settings of this update
        flat, network, optimizer = self._flattened_policy()
        for group in policy.optimizer.param_groups:
            group["lr"] = settings["learning_rate"]
        objective = Objective(policy, self._head, settings, anchor, demonstrated, self._ppo)
        epochs, batch_size = (settings["n_epochs"], settings["batch_size"]) if self._ppo else (1, None)
        try:
            for batch in Minibatches(policy, self._head, buffer, anchor, demonstrated).draw(epochs, batch_size):
                # Loss
                shown = None if batch.shown is None else batch.shown.features
                loss = objective.loss(*network.forward(batch.features, shown), batch)
                if loss is None:
                    break
                refuse_not_finite(loss.item())
                # Gradients
                flat.zero_gradients()
                network.backward(loss)
                # Clip, as clip_grad_norm_ does: by the norm of the parameters' norms.
                norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(flat.gradient_views, 2.0)), 2.0)
                refuse_not_finite(norm.item(), NORM)
                # Step
                flat.gradients.mul_(torch.clamp(settings["max_grad_norm"] / (norm + 1e-6), max=1.0))
                optimizer.step()
        finally:
            optimizer.publish()
        return update_diagnostics(policy, buffer, objective.means(), settings)

    def fit_critic(
        self, buffer: Rollout, optimizer: torch.optim.Optimizer, epochs: int, batch_size: int
    ) -> dict[str, float]:
        """Fit the critic; see `Engine.fit_critic`."""
        policy = self.policy
        policy.set_training_mode(True)
        parameters = critic_parameters(policy)
        losses = []
        for batch in Minibatches(policy, self._head, buffer).draw(epochs, batch_size):
            values = self._critic(batch.features.detach()).flatten()
            loss = functional.mse_loss(batch.returns, values)
            refuse_not_finite(loss.item())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            refuse_not_finite(torch.nn.utils.clip_grad_norm_(parameters, 0.5).item(), NORM)
            optimizer.step()
            losses.append(loss.item())
        return {"value_loss": float(np.mean(losses)), "explained_variance": explained(buffer)}

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: the learner saves the global generators."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    # --- pieces ------------------------------------------------------------------------------------------------

    def _array(self, actions: torch.Tensor) -> np.ndarray:
        return actions.cpu().numpy().reshape(-1, *self._shape)

    def _flattened_policy(self) -> tuple[FlatParameters, TorchNetwork, FlatOptimizer]:
        if self._flat is None:
            flat = FlatParameters(list(self.policy.parameters()))
            self._flat = flat, torch_network(self.policy, flat)
        flat, network = self._flat
        optimizer = self._optimizer
        if optimizer is None or optimizer.optimizer is not self.policy.optimizer or not optimizer.in_force:
            self._optimizer = optimizer = FlatOptimizer(self.policy.optimizer, flat)
        return flat, network, optimizer
