"""Action distributions in torch, without distribution objects.

The operations and their order are those of stable-baselines3 and torch.distributions, so numbers, gradients and random
draws are bit-identical. Argument checks and unused results are left out.
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
    """One kind of action distribution. `given` is a result of `distribution`."""

    def distribution(self, raw: Tensor, policy: ActorCriticPolicy) -> Any:
        """Return the distributions of a policy, from the outputs of its last layer."""

    def draw(self, given: Any, generator: torch.Generator | None) -> Tensor:
        """Sample actions, shape `(n, ...)`, with the given generator or torch's global one."""

    def likeliest(self, given: Any) -> Tensor:
        """Return the likeliest actions, shape `(n, ...)`."""

    def log_prob(self, given: Any, actions: Tensor) -> Tensor:
        """Return the log probabilities of actions in the form of the method `actions`, shape `(n,)`."""

    def entropy(self, given: Any) -> Tensor:
        """Return the entropies, shape `(n,)`."""

    def divergence(self, given: Any, reference: Any) -> Tensor:
        """Return KL(given || reference) in nats, summed over action dimensions, shape `(n,)`."""

    def actions(self, stored: Tensor) -> Tensor:
        """Convert the actions of a rollout, shape `(n, width)`, to the form that `log_prob` takes."""


def torch_head(space: spaces.Space[Any]) -> TorchHead:
    """Return the head for an action space."""
    if isinstance(space, spaces.Discrete):
        return _Categorical()
    if isinstance(space, spaces.MultiDiscrete):
        return _MultiCategorical([int(n) for n in space.nvec])
    if isinstance(space, spaces.MultiBinary):
        return _Bernoulli()
    return _Gaussian()


class _Categorical:
    """`given` are log probabilities."""

    def distribution(self, raw: Tensor, policy: ActorCriticPolicy) -> Tensor:
        if raw.requires_grad:
            return raw - raw.logsumexp(dim=-1, keepdim=True)
        # The same as logsumexp without its search for infinite numbers, which is the slowest operation of an action.
        most = raw.amax(dim=-1, keepdim=True)
        return raw - (raw - most).exp_().sum(dim=-1, keepdim=True).log_().add_(most)

    def draw(self, given: Tensor, generator: torch.Generator | None) -> Tensor:
        # The same as torch.multinomial without its checks.
        noise = torch.empty_like(given).exponential_(generator=generator)
        return torch.div(functional.softmax(given, dim=-1), noise, out=noise).argmax(dim=-1)

    def likeliest(self, given: Tensor) -> Tensor:
        # Compare probabilities: if rounding makes two of them equal, the first counts.
        return functional.softmax(given, dim=-1).argmax(dim=-1)

    def log_prob(self, given: Tensor, actions: Tensor) -> Tensor:
        return given.gather(-1, actions).squeeze(-1)

    def entropy(self, given: Tensor) -> Tensor:
        clamped = torch.clamp(given, min=torch.finfo(given.dtype).min)
        return -(clamped * functional.softmax(given, dim=-1)).sum(-1)

    def divergence(self, given: Tensor, reference: Tensor) -> Tensor:
        return (functional.softmax(given, dim=-1) * (given - reference)).sum(-1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.long().reshape(len(stored), 1)


class _MultiCategorical:
    """`given` is a list of log probabilities, one part for each choice."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self._single = _Categorical()

    def distribution(self, raw: Tensor, policy: ActorCriticPolicy) -> list[Tensor]:
        return [self._single.distribution(part, policy) for part in torch.split(raw, self._sizes, dim=1)]

    def draw(self, given: list[Tensor], generator: torch.Generator | None) -> Tensor:
        return torch.stack([self._single.draw(part, generator) for part in given], dim=1)

    def likeliest(self, given: list[Tensor]) -> Tensor:
        return torch.stack([self._single.likeliest(part) for part in given], dim=1)

    def log_prob(self, given: list[Tensor], actions: Tensor) -> Tensor:
        pairs = zip(given, torch.split(actions, 1, dim=1), strict=True)
        return torch.stack([self._single.log_prob(part, column) for part, column in pairs], dim=1).sum(dim=1)

    def entropy(self, given: list[Tensor]) -> Tensor:
        return torch.stack([self._single.entropy(part) for part in given], dim=1).sum(dim=1)

    def divergence(self, given: list[Tensor], reference: list[Tensor]) -> Tensor:
        pairs = zip(given, reference, strict=True)
        return torch.stack([self._single.divergence(one, other) for one, other in pairs], dim=1).sum(dim=1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.long()


class _Gaussian:
    """`given` are means and standard deviations."""

    def distribution(self, raw: Tensor, policy: ActorCriticPolicy) -> tuple[Tensor, Tensor]:
        log_std: Any = policy.log_std
        return raw, torch.ones_like(raw) * log_std.exp()

    def draw(self, given: tuple[Tensor, Tensor], generator: torch.Generator | None) -> Tensor:
        mean, scale = given
        return mean + torch.empty_like(mean).normal_(generator=generator) * scale

    def likeliest(self, given: tuple[Tensor, Tensor]) -> Tensor:
        return given[0]

    def log_prob(self, given: tuple[Tensor, Tensor], actions: Tensor) -> Tensor:
        mean, scale = given
        variance = scale**2
        log_scale = scale.log()
        return (-((actions - mean) ** 2) / (2 * variance) - log_scale - _LOG_SQRT_2PI).sum(dim=1)

    def entropy(self, given: tuple[Tensor, Tensor]) -> Tensor:
        return (_GAUSSIAN_ENTROPY + given[1].log()).sum(dim=1)

    def divergence(self, given: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]) -> Tensor:
        (mean, scale), (other_mean, other_scale) = given, reference
        ratio = (scale / other_scale).pow(2)
        return (0.5 * (ratio + ((mean - other_mean) / other_scale).pow(2) - 1 - ratio.log())).sum(dim=1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.float()


class _Bernoulli:
    """`given` are logits."""

    def distribution(self, raw: Tensor, policy: ActorCriticPolicy) -> Tensor:
        return raw

    def draw(self, given: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.bernoulli(torch.sigmoid(given), generator=generator)

    def likeliest(self, given: Tensor) -> Tensor:
        return torch.sigmoid(given).round()

    def log_prob(self, given: Tensor, actions: Tensor) -> Tensor:
        return (-functional.binary_cross_entropy_with_logits(given, actions, reduction="none")).sum(dim=1)

    def entropy(self, given: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(given, torch.sigmoid(given), reduction="none").sum(dim=1)

    def divergence(self, given: Tensor, reference: Tensor) -> Tensor:
        on = torch.sigmoid(given) * (functional.logsigmoid(given) - functional.logsigmoid(reference))
        off = torch.sigmoid(-given) * (functional.logsigmoid(-given) - functional.logsigmoid(-reference))
        return (on + off).sum(dim=1)

    def actions(self, stored: Tensor) -> Tensor:
        return stored.float()
