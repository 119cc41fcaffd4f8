"""Actor and critic in torch, and the gradients of their parameters: by autograd, or by hand where they are simple.

By hand are autograd's own operations, in its order and to its bits, without a graph to build and walk over, and written
where the optimiser reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn import functional

from rlstages.learners.algorithms.on_policy.flat import FlatParameters
from rlstages.learners.algorithms.on_policy.torch.features import sees_vectors

Layers = Callable[[torch.Tensor], torch.Tensor]
_ACTIVATIONS: dict[type[nn.Module], Layers] = {nn.Tanh: torch.tanh, nn.ReLU: torch.relu}


class TorchNetwork(Protocol):
    """What comes after the features."""

    def forward(self, features: Any, shown: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the actor's last layer gives, and the values, for a loss.

        Args:
            features: Of `n` observations.
            shown: Features of `m` more, which only the actor is asked about.

        Returns:
            Shapes `(n + m, width)` and `(n,)`.
        """

    def backward(self, loss: torch.Tensor) -> None:
        """Set the parameters' gradients, which are zero, to those of a loss of what `forward` returned last."""


def torch_network(policy: ActorCriticPolicy, flat: FlatParameters) -> TorchNetwork:
    """Return a policy's network; its parameters are those of `flat`."""
    towers = _towers(policy)
    known = all(type(module) in (nn.Linear, *_ACTIVATIONS) for tower in towers for module in tower)
    return _ByHand(policy, flat) if known and sees_vectors(policy) else _ByAutograd(policy)


def towers_of(policy: ActorCriticPolicy) -> tuple[Layers, Layers]:
    """Return what the actor and what the critic compute from features, each to its last layer."""
    actor, critic = map(_layers_of, _towers(policy))
    return actor, critic


def _layers_of(modules: Iterable[nn.Module]) -> Layers:
    """Return what a row of layers computes, without the modules' own bookkeeping where they are simple."""
    steps: list[Layers] = []
    for module in modules:
        if type(module) is nn.Linear:
            steps.append(partial(functional.linear, weight=module.weight, bias=module.bias))
        else:
            steps.append(_ACTIVATIONS.get(type(module), module))

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        for step in steps:
            inputs = step(inputs)
        return inputs

    return compute


class _ByAutograd:
    def __init__(self, policy: ActorCriticPolicy) -> None:
        self._actor, self._critic = towers_of(policy)

    def forward(self, features: Any, shown: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self._actor(_joined(features, shown)), self._critic(features).flatten()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]


class _ByHand:
    def __init__(self, policy: ActorCriticPolicy, flat: FlatParameters) -> None:
        self._actor, self._critic = (_Tower(tower, flat) for tower in _towers(policy))
        self._raw, self._values = torch.empty(0), torch.empty(0)

    def forward(self, features: Any, shown: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            self._raw = self._actor.forward(_joined(features, shown))
            self._values = self._critic.forward(features).flatten()
        return self._raw.requires_grad_(), self._values.requires_grad_()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        assert self._raw.grad is not None and self._values.grad is not None
        with torch.no_grad():
            self._actor.backward(self._raw.grad)
            self._critic.backward(self._values.grad[:, None])


class _Tower:
    """Linear layers, and activations between them."""

    def __init__(self, modules: list[nn.Module], flat: FlatParameters) -> None:
        views = {id(parameter): view for parameter, view in zip(flat.parameters, flat.gradient_views, strict=True)}
        self._modules = modules
        self._gradients = [(views[id(m.weight)], views[id(m.bias)]) for m in modules if isinstance(m, nn.Linear)]
        self._inputs: list[torch.Tensor] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self._inputs = []
        for module in self._modules:
            self._inputs.append(inputs)
            if isinstance(module, nn.Linear):
                inputs = functional.linear(inputs, module.weight, module.bias)
            else:
                inputs = _ACTIVATIONS[type(module)](inputs)
        return inputs

    def backward(self, gradient: torch.Tensor) -> None:
        gradients = list(self._gradients)
        outputs = [*self._inputs[1:], None]
        for module, inputs, output in reversed(list(zip(self._modules, self._inputs, outputs, strict=True))):
            if isinstance(module, nn.Linear):
                by_weight, by_bias = gradients.pop()
                torch.mm(gradient.t(), inputs, out=by_weight)
                torch.sum(gradient, 0, out=by_bias)
                if gradients:
                    gradient = torch.mm(gradient, module.weight)
            elif isinstance(module, nn.Tanh):
                gradient = torch.ops.aten.tanh_backward(gradient, output)
            else:
                gradient = torch.ops.aten.threshold_backward(gradient, output, 0)


def _towers(policy: ActorCriticPolicy) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the layers of the actor and those of the critic, each to its end."""
    extractor = policy.mlp_extractor
    return [*extractor.policy_net, policy.action_net], [*extractor.value_net, policy.value_net]


def _joined(features: Any, shown: Any) -> Any:
    return features if shown is None else torch.cat([features, shown])
