"""Action distributions in torch, without distribution objects.

The operations and their order are those of stable-baselines3 and torch.distributions, so that numbers, gradients and
random draws are the same to the last bit; left out are the checks of arguments and everything computed but not used.
`raw` is always what the policy's last layer gives, shape `(n, width)`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional

Tensor = torch.Tensor
_LOG_SQRT_2PI = math.log(math.sqrt(2 * math.pi))
_GAUSSIAN_ENTROPY = 0.5 + 0.5 * math.log(2 * math.pi)


class TorchHead(Protocol):
    """One kind of action distribution."""

    def sample(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions, shape `(n, ...)`, from torch's global generator; with them their log probabilities `(n,)`."""

    def evaluate(self, raw: Tensor, actions: Tensor, entropy_counts: bool) -> tuple[Tensor, Tensor]:
        """Return the actions' log probabilities and the entropies, both `(n,)`.

        Args:
            raw: See above.
            actions: As `actions` gives them.
            entropy_counts: Whether the entropies are differentiated.
        """

    def divergence(self, raw: Tensor, reference: Tensor, anchor: ActorCriticPolicy) -> Tensor:
        """Return KL(raw || reference), shape `(n,)`, in nats, summed over action dimensions."""

    def actions(self, stored: Tensor) -> Tensor:
        """Return the actions of a rollout, shape `(n, width)`, as `evaluate` takes them."""


def torch_head(policy: ActorCriticPolicy) -> TorchHead:
    """Return the head for a policy's action space."""
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        return _Categorical()
    if isinstance(space, spaces.MultiDiscrete):
        return _MultiCategorical([int(n) for n in space.nvec])
    if isinstance(space, spaces.MultiBinary):
        return _Bernoulli()
    return _Gaussian(policy)


class _Categorical:
    def sample(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        logits = _normalized(raw)
        actions = _draw(logits)
        return actions.squeeze(-1), logits.gather(-1, actions).squeeze(-1)

    def evaluate(self, raw: Tensor, actions: Tensor, entropy_counts: bool) -> tuple[Tensor, Tensor]:
        logits = _normalized(raw)
        log_prob = logits.gather(-1, actions).squeeze(-1)
        with torch.set_grad_enabled(entropy_counts and torch.is_grad_enabled()):
            return log_prob, _entropy(logits)

    def divergence(self, raw: Tensor, reference: Tensor, anchor: ActorCriticPolicy) -> Tensor:
        logits = _normalized(raw)
        return (functional.softmax(logits, dim=-1) * (logits - _normalized(reference))).sum(-1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.long().reshape(len(stored), 1)


class _MultiCategorical:
    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes

    def sample(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        parts = [_normalized(part) for part in torch.split(raw, self._sizes, dim=1)]
        drawn = [_draw(part) for part in parts]
        log_probs = [part.gather(-1, action).squeeze(-1) for part, action in zip(parts, drawn, strict=True)]
        return torch.cat(drawn, dim=1), torch.stack(log_probs, dim=1).sum(dim=1)

    def evaluate(self, raw: Tensor, actions: Tensor, entropy_counts: bool) -> tuple[Tensor, Tensor]:
        parts = [_normalized(part) for part in torch.split(raw, self._sizes, dim=1)]
        columns = torch.split(actions, 1, dim=1)
        log_probs = [part.gather(-1, column).squeeze(-1) for part, column in zip(parts, columns, strict=True)]
        log_prob = torch.stack(log_probs, dim=1).sum(dim=1)
        with torch.set_grad_enabled(entropy_counts and torch.is_grad_enabled()):
            return log_prob, torch.stack([_entropy(part) for part in parts], dim=1).sum(dim=1)

    def divergence(self, raw: Tensor, reference: Tensor, anchor: ActorCriticPolicy) -> Tensor:
        pairs = zip(torch.split(raw, self._sizes, dim=1), torch.split(reference, self._sizes, dim=1), strict=True)
        single = _Categorical()
        return torch.stack([single.divergence(one, other, anchor) for one, other in pairs], dim=1).sum(dim=1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.long()


class _Gaussian:
    def __init__(self, policy: ActorCriticPolicy) -> None:
        self._policy = policy

    def sample(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        scale = self._scale(raw, self._policy)
        actions = raw + torch.empty_like(raw).normal_() * scale
        return actions, self._log_prob(raw, scale, actions)

    def evaluate(self, raw: Tensor, actions: Tensor, entropy_counts: bool) -> tuple[Tensor, Tensor]:
        scale = self._scale(raw, self._policy)
        log_prob = self._log_prob(raw, scale, actions)
        with torch.set_grad_enabled(entropy_counts and torch.is_grad_enabled()):
            return log_prob, (_GAUSSIAN_ENTROPY + scale.log()).sum(dim=1)

    def divergence(self, raw: Tensor, reference: Tensor, anchor: ActorCriticPolicy) -> Tensor:
        scale, other = self._scale(raw, self._policy), self._scale(reference, anchor)
        ratio = (scale / other).pow(2)
        return (0.5 * (ratio + ((raw - reference) / other).pow(2) - 1 - ratio.log())).sum(dim=1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.float()

    @staticmethod
    def _scale(mean: Tensor, policy: ActorCriticPolicy) -> Tensor:
        log_std: Any = policy.log_std
        scale: Tensor = torch.ones_like(mean) * log_std.exp()
        return scale

    @staticmethod
    def _log_prob(mean: Tensor, scale: Tensor, actions: Tensor) -> Tensor:
        variance = scale**2
        log_scale = scale.log()
        return (-((actions - mean) ** 2) / (2 * variance) - log_scale - _LOG_SQRT_2PI).sum(dim=1)


class _Bernoulli:
    def sample(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        actions = torch.bernoulli(torch.sigmoid(raw))
        return actions, self._log_prob(raw, actions)

    def evaluate(self, raw: Tensor, actions: Tensor, entropy_counts: bool) -> tuple[Tensor, Tensor]:
        log_prob = self._log_prob(raw, actions)
        with torch.set_grad_enabled(entropy_counts and torch.is_grad_enabled()):
            entropy = functional.binary_cross_entropy_with_logits(raw, torch.sigmoid(raw), reduction="none")
            return log_prob, entropy.sum(dim=1)

    def divergence(self, raw: Tensor, reference: Tensor, anchor: ActorCriticPolicy) -> Tensor:
        on = torch.sigmoid(raw) * (functional.logsigmoid(raw) - functional.logsigmoid(reference))
        off = torch.sigmoid(-raw) * (functional.logsigmoid(-raw) - functional.logsigmoid(-reference))
        return (on + off).sum(dim=1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.float()

    @staticmethod
    def _log_prob(raw: Tensor, actions: Tensor) -> Tensor:
        return (-functional.binary_cross_entropy_with_logits(raw, actions, reduction="none")).sum(dim=1)


def _normalized(logits: Tensor) -> Tensor:
    return logits - logits.logsumexp(dim=-1, keepdim=True)


def _draw(logits: Tensor) -> Tensor:
    """Draw one index a row, shape `(n, 1)`, as `torch.multinomial` does after its checks."""
    noise = torch.empty_like(logits).exponential_(1.0)
    return torch.div(functional.softmax(logits, dim=-1), noise, out=noise).argmax(dim=-1, keepdim=True)


def _entropy(logits: Tensor) -> Tensor:
    clamped = torch.clamp(logits, min=torch.finfo(logits.dtype).min)
    return -(clamped * functional.softmax(logits, dim=-1)).sum(-1)
