"""Action distributions in NumPy, with their gradients.

`raw` is the output of the actor's last layer, shape `(width, n)`: logits or means. Log probabilities, entropies and
KL divergences have the shape `(n,)`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from rlstages.learners.algorithms.on_policy.numpy.network import NumpyNetwork

_LOG_2PI = math.log(2 * math.pi)


class Pull(NamedTuple):
    """Weights of the loss terms that depend on the distributions, besides the policy gradient.

    Attributes:
        entropy: Weight of the mean entropy, which is maximised.
        anchor: Weight of the mean KL divergence from the reference policy, which is minimised.
    """

    entropy: float
    anchor: float


class Head(Protocol):
    """One kind of action distribution."""

    def noise(self, generator: np.random.Generator, steps: int, copies: int) -> np.ndarray:
        """Return the noise that `sample` needs for a whole rollout, shape `(steps, width, copies)`.

        Args:
            generator: Generator of the noise.
            steps: Steps of the rollout.
            copies: Number of environments.
        """

    def sample(self, raw: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return actions, shape `(n, parts)`."""

    def likeliest(self, raw: np.ndarray) -> np.ndarray:
        """Return the likeliest actions, shape `(n, parts)`."""

    def prepare(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions of a rollout, shape `(n, parts)`, to the form of the other methods, shape `(width, n)`."""

    def reference(self, raw: np.ndarray, anchor: NumpyNetwork) -> Any:
        """Convert the reference policy's outputs to the form of the other methods, `(width, n)` or `(width, 1)`."""

    def log_prob(self, raw: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the log probabilities of actions, and keep what `backward` needs."""

    def backward(
        self, gradients: np.ndarray, actions: np.ndarray, pull: Pull, reference: np.ndarray | None
    ) -> np.ndarray:
        """Return the gradient of the loss by `raw`, and set the gradient of `log_std`.

        Call `log_prob` for the same actions before.

        Args:
            gradients: Gradient of the policy loss by the log probabilities.
            actions: Result of `prepare`.
            pull: Weights of the other loss terms.
            reference: Result of `reference` for the same observations, or `None`.
        """

    def entropy(self, raw: np.ndarray) -> np.ndarray:
        """Return the entropies."""

    def divergence(self, raw: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Return KL(raw || reference)."""


def numpy_head(space: Any, network: NumpyNetwork) -> Head:
    """Return the head for an action space."""
    if isinstance(space, spaces.Discrete):
        return _Categorical([int(space.n)])
    if isinstance(space, spaces.MultiDiscrete):
        return _Categorical([int(n) for n in space.nvec])
    return _Gaussian(network)


class _Categorical:
    """One or several independent categorical distributions; the rows of `raw` are their logits, one after another."""

    def __init__(self, sizes: list[int]) -> None:
        ends = np.cumsum(sizes).tolist()
        self._parts = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        self._log, self._share = np.empty(0), np.empty(0)

    def noise(self, generator: np.random.Generator, steps: int, copies: int) -> np.ndarray:
        """Return standard Gumbel noise; the index of the largest sum of logit and noise is a sample."""
        exponential = generator.standard_exponential((steps, self._parts[-1].stop, copies))
        return (-np.log(exponential)).astype(np.float32)

    def sample(self, raw: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return self.likeliest(raw + noise)

    def likeliest(self, raw: np.ndarray) -> np.ndarray:
        if len(self._parts) == 1:
            only: np.ndarray = raw.argmax(axis=0)[:, None]
            return only
        return np.stack([raw[part].argmax(axis=0) for part in self._parts], axis=1)

    def prepare(self, actions: np.ndarray) -> np.ndarray:
        chosen = np.zeros((self._parts[-1].stop, len(actions)), np.float32)
        for column, part in enumerate(self._parts):
            chosen[part.start + actions[:, column].astype(np.int64), np.arange(len(actions))] = 1.0
        return chosen

    def reference(self, raw: np.ndarray, anchor: NumpyNetwork) -> np.ndarray:
        return self._normalized(raw)[0]

    def log_prob(self, raw: np.ndarray, actions: np.ndarray) -> np.ndarray:
        self._log, self._share = self._normalized(raw)
        return _sum(self._log * actions)

    def backward(
        self, gradients: np.ndarray, actions: np.ndarray, pull: Pull, reference: np.ndarray | None
    ) -> np.ndarray:
        log, share = self._log, self._share
        result = actions - share
        result *= gradients
        weight = pull.entropy + pull.anchor
        if weight > 0:
            # Entropy and KL together: the gradient by the logits is p * (x - mean of x over p), x as in `log` here.
            log *= weight / len(gradients)
            if pull.anchor > 0 and reference is not None:
                log -= (pull.anchor / len(gradients)) * reference
            log *= share
            for part in self._parts:
                log[part] -= share[part] * np.add.reduce(log[part], axis=0)
            result += log
        return result

    def entropy(self, raw: np.ndarray) -> np.ndarray:
        log, share = self._normalized(raw)
        return _sum(-share * log)

    def divergence(self, raw: np.ndarray, reference: np.ndarray) -> np.ndarray:
        log, share = self._normalized(raw)
        return _sum(share * (log - reference))

    def _normalized(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the log probabilities and the probabilities, both in the shape of `raw`."""
        if len(self._parts) == 1:
            return _softmax(raw)
        both = [_softmax(raw[part]) for part in self._parts]
        return np.concatenate([log for log, _ in both]), np.concatenate([share for _, share in both])


class _Gaussian:
    """Independent normal distributions; `raw` are the means, and the network holds `log_std`."""

    def __init__(self, network: NumpyNetwork) -> None:
        self._network = network
        self._off, self._squares = np.empty(0), np.empty(0)
        self._anchor_variance = np.empty(0)

    def noise(self, generator: np.random.Generator, steps: int, copies: int) -> np.ndarray:
        return generator.standard_normal((steps, self._network.width, copies), dtype=np.float32)

    def sample(self, raw: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return self.likeliest(raw + noise * np.exp(self._log_std))

    def likeliest(self, raw: np.ndarray) -> np.ndarray:
        actions: np.ndarray = raw.T
        return actions

    def prepare(self, actions: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(actions.T, dtype=np.float32)

    def reference(self, raw: np.ndarray, anchor: NumpyNetwork) -> np.ndarray:
        assert anchor.log_std is not None
        self._anchor_variance = np.exp(2 * anchor.log_std)
        return raw

    def log_prob(self, raw: np.ndarray, actions: np.ndarray) -> np.ndarray:
        log_std = self._log_std
        self._off = off = actions - raw
        off *= np.exp(-log_std)
        self._squares = off * off
        result = _sum(self._squares)
        result *= -0.5
        result -= float(log_std.sum()) + 0.5 * _LOG_2PI * len(log_std)
        return result

    def backward(
        self, gradients: np.ndarray, actions: np.ndarray, pull: Pull, reference: np.ndarray | None
    ) -> np.ndarray:
        log_std, by_log_std, off = self._log_std, self._network.log_std_gradient, self._off
        assert by_log_std is not None
        np.dot(self._squares, gradients, out=by_log_std)
        by_log_std -= gradients.sum() + pull.entropy
        scale = np.exp(-log_std)
        result: np.ndarray = off * scale
        result *= gradients
        if pull.anchor > 0 and reference is not None:
            # Mean of the distribution, from the action and its standardised distance
            mean = actions - off / scale
            mean -= reference
            mean *= (pull.anchor / len(gradients)) / self._anchor_variance
            result += mean
            by_log_std += pull.anchor * (np.exp(2 * log_std) / self._anchor_variance - 1)[:, 0]
        return result

    def entropy(self, raw: np.ndarray) -> np.ndarray:
        each = float(self._log_std.sum()) + 0.5 * (1 + _LOG_2PI) * len(self._log_std)
        return np.full(raw.shape[1], each, np.float32)

    def divergence(self, raw: np.ndarray, reference: np.ndarray) -> np.ndarray:
        ratio = np.exp(2 * self._log_std) / self._anchor_variance
        terms = 0.5 * (ratio + (raw - reference) ** 2 / self._anchor_variance - 1 - np.log(ratio))
        return _sum(terms)

    @property
    def _log_std(self) -> np.ndarray:
        assert self._network.log_std is not None
        return self._network.log_std


def _sum(terms: np.ndarray) -> np.ndarray:
    """Return sums over the first axis."""
    result: np.ndarray = np.add.reduce(terms, axis=0)
    return result


def _softmax(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    log = raw - np.maximum.reduce(raw, axis=0)
    share = np.exp(log)
    total = np.add.reduce(share, axis=0)
    share /= total
    log -= np.log(total)
    return log, share
