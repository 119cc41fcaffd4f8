"""The gradient steps of PPO and A2C in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rlstages.learners.algorithms.on_policy.flat import FlatOptimizer
from rlstages.learners.algorithms.on_policy.numpy.heads import Head, Pull
from rlstages.learners.algorithms.on_policy.numpy.network import NumpyNetwork
from rlstages.learners.algorithms.on_policy.protocol import NORM, refuse_not_finite


class Rows(NamedTuple):
    """Rows of a rollout.

    `inputs` has the shape `(n, inputs)`, `actions` and `reference` (the outputs of the reference policy) have the shape
    `(width, n)`, and all others `(n,)`.
    """

    inputs: np.ndarray
    actions: np.ndarray
    old_log_prob: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    old_values: np.ndarray
    reference: np.ndarray | None

    def rows(self, rows: Any) -> Rows:
        """Select rows, in the given order."""
        reference = None if self.reference is None else self.reference[:, rows]
        return Rows(
            self.inputs[rows],
            self.actions[:, rows],
            self.old_log_prob[rows],
            self.advantages[rows],
            self.returns[rows],
            self.old_values[rows],
            reference,
        )


class DemonstratedRows(NamedTuple):
    """Demonstrated transitions, `m` of them for each gradient step.

    Attributes:
        inputs: Inputs of the network, shape `(steps, m, inputs)`.
        actions: Actions, shape `(width, steps, m)`.
        weight: Weight of their mean negative log likelihood in the loss.
    """

    inputs: np.ndarray
    actions: np.ndarray
    weight: float


class Update:
    """The gradient steps of one update.

    The loss of PPO is, with r = exp(log_prob - old_log_prob) and the standardised advantages A,

        -mean(min(r * A, clip(r, 1 - clip_range, 1 + clip_range) * A))
        + vf_coef * mean((returns - V)^2) - ent_coef * mean(entropy)
        + anchor_kl * mean(KL(policy || reference)) - demonstration_loss * mean(log_prob of demonstrated actions)

    With `clip_range_vf`, V moves at most this far from its old value. In A2C's loss, the first line is
    -mean(A * log_prob), and A is not standardised.

    Args:
        network: Network whose parameters are changed.
        head: Action distribution of the network.
        optimizer: Flat form of the policy's optimiser.
        settings: Settings of the algorithm; see `Engine.update`.
        pull: Weights of the entropy bonus and of the KL divergence.
        ppo: Whether to use PPO's loss instead of A2C's.
    """

    def __init__(
        self,
        network: NumpyNetwork,
        head: Head,
        optimizer: FlatOptimizer,
        settings: Mapping[str, Any],
        pull: Pull,
        ppo: bool,
    ) -> None:
        self._network, self._head, self._optimizer, self._pull, self._ppo = network, head, optimizer, pull, ppo
        self._settings = settings
        self._clip = float(settings["clip_range"]) if ppo else 0.0
        self._clip_values: float | None = settings.get("clip_range_vf")
        self._target = settings.get("target_kl")
        self._batches, self._sums = 0, dict[str, float]()

    def means(self) -> dict[str, float]:
        """Return the diagnostics by name, as means over the minibatches so far."""
        return {name: value / self._batches for name, value in self._sums.items()}

    def epoch(self, data: Rows, shown: DemonstratedRows | None = None) -> bool:
        """Make one pass over the rows in their order.

        Args:
            data: Rows of the rollout.
            shown: Demonstrations whose term is added to the loss, or `None`.

        Returns:
            Whether to continue with the next epoch; `False` after `target_kl` was exceeded.
        """
        size, network = len(data.returns), self._network
        length = self._settings["batch_size"] if self._ppo else size
        if self._ppo:
            data = data._replace(advantages=standardized(data.advantages, length))
        raw, values = np.empty((network.width, size), np.float32), np.empty(size, np.float32)
        log_prob, weights = np.empty(size, np.float32), np.empty(size, np.float32)
        done, going_on = 0, True
        try:
            for step, start in enumerate(range(0, size, length)):
                # Demonstrations
                more = None if shown is None else self._imitate(shown, step)
                # Forward pass of the minibatch
                rows = slice(start, min(start + length, size))
                batch = data.rows(rows)
                network.forward(batch.inputs, raw[:, rows], values[rows])
                log_prob[rows] = now = self._head.log_prob(raw[:, rows], batch.actions)
                weights[rows] = 1 / len(now)
                done = rows.stop
                self._batches += 1
                # Early stop
                if self._target is not None and self._ppo:
                    moved = now - batch.old_log_prob
                    if float(np.mean(np.exp(moved) - 1 - moved)) > 1.5 * self._target:
                        going_on = False
                        break
                # Backward pass
                self._gradients(batch, raw[:, rows], values[rows], now)
                if more is not None:
                    self._network.flat.gradients.numpy()[:] += more.gradients
                # Step
                norm = self._optimizer.clip(self._settings["max_grad_norm"])
                if not math.isfinite(norm):
                    losses = self._losses(batch, raw[:, rows], values[rows], now, weights[rows])
                    refuse_not_finite(self._total(losses) + (0.0 if more is None else more.loss))
                    refuse_not_finite(norm, NORM)
                self._optimizer.numpy_step()
        finally:
            self._optimizer.publish()
        # Diagnostics
        seen = slice(0, done)
        losses = self._losses(data.rows(seen), raw[:, seen], values[seen], log_prob[seen], weights[seen])
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        return going_on

    def _gradients(self, batch: Rows, raw: np.ndarray, values: np.ndarray, log_prob: np.ndarray) -> None:
        size, advantages = len(values), batch.advantages
        # Policy loss
        by_log_prob = advantages * (-1.0 / size)
        if self._ppo:
            ratio = np.exp(log_prob - batch.old_log_prob)
            by_log_prob *= ratio
            # The gradient is zero where the clipped term is the smaller one.
            by_log_prob *= np.where(advantages > 0, ratio <= 1 + self._clip, ratio >= 1 - self._clip)
        by_raw = self._head.backward(by_log_prob, batch.actions, self._pull, batch.reference)
        # Value loss
        by_value = self._near_old(values, batch.old_values) - batch.returns
        if self._clip_values is not None:
            by_value *= np.abs(values - batch.old_values) <= self._clip_values
        by_value *= 2 * self._settings["vf_coef"] / size
        self._network.backward(batch.inputs, by_raw, by_value)

    def _imitate(self, shown: DemonstratedRows, step: int) -> _Term:
        """Return the demonstrations' loss term of one gradient step; this overwrites the gradients."""
        inputs, actions, gradients = shown.inputs[step], shown.actions[:, step], self._network.flat.gradients.numpy()
        raw = np.empty(actions.shape, np.float32)
        self._network.act(inputs, raw)
        unlikeliness = -float(self._head.log_prob(raw, actions).mean())
        self._sums["demonstration_loss"] = self._sums.get("demonstration_loss", 0.0) + unlikeliness
        gradients[:] = 0
        by_log_prob = np.full(len(inputs), -shown.weight / len(inputs), np.float32)
        self._network.actor_backward(inputs, self._head.backward(by_log_prob, actions, Pull(0.0, 0.0), None))
        return _Term(shown.weight * unlikeliness, gradients.copy())

    def _near_old(self, values: np.ndarray, old: np.ndarray) -> np.ndarray:
        """Clip the change of values to `clip_range_vf`, if that is set."""
        if self._clip_values is None:
            return values
        moved: np.ndarray = old + np.clip(values - old, -self._clip_values, self._clip_values)
        return moved

    def _losses(
        self, rows: Rows, raw: np.ndarray, values: np.ndarray, log_prob: np.ndarray, weights: np.ndarray
    ) -> dict[str, float]:
        """Return the loss terms and other diagnostics, as weighted sums over rows."""
        found: dict[str, np.ndarray] = {}
        if self._ppo:
            moved = log_prob - rows.old_log_prob
            ratio = np.exp(moved)
            clipped = np.minimum(np.maximum(ratio, 1 - self._clip), 1 + self._clip)
            found["approx_kl"] = ratio - 1 - moved
            found["clip_fraction"] = np.abs(ratio - 1) > self._clip
            gain = np.minimum(rows.advantages * ratio, rows.advantages * clipped)
        else:
            gain = rows.advantages * log_prob
        if rows.reference is not None:
            found["anchor_kl"] = self._head.divergence(raw, rows.reference)
        found["policy_loss"] = -gain
        found["value_loss"] = (self._near_old(values, rows.old_values) - rows.returns) ** 2
        found["entropy"] = self._head.entropy(raw)
        return {name: float(np.dot(terms, weights)) for name, terms in found.items()}

    def _total(self, parts: Mapping[str, float]) -> float:
        values: float = self._settings["vf_coef"] * parts["value_loss"] - self._pull.entropy * parts["entropy"]
        return parts["policy_loss"] + values + self._pull.anchor * parts.get("anchor_kl", 0.0)


class _Term(NamedTuple):
    """A term of the loss, and its gradients by all parameters."""

    loss: float
    gradients: np.ndarray


def standardized(advantages: np.ndarray, length: int) -> np.ndarray:
    """Standardise advantages to mean 0 and standard deviation 1 in each minibatch of `length`."""
    result = np.empty_like(advantages)
    whole = len(advantages) // length * length
    for part, target in ((advantages[:whole], result[:whole]), (advantages[whole:], result[whole:])):
        if len(part):
            table = part.reshape(-1, min(length, len(part)))
            if table.shape[1] == 1:
                target[:] = part
                continue
            table = table - table.mean(axis=1, keepdims=True)
            table /= table.std(axis=1, ddof=1, keepdims=True) + 1e-8
            target[:] = table.reshape(-1)
    return result
