"""Actor and critic in torch, with gradients by autograd or, for simple networks, by hand.

The hand-written gradients use autograd's operations in autograd's order and are bit-identical. They need no graph, and
are written to the memory that the optimiser reads.
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
    """The layers behind the features."""

    def forward(self, features: Any, shown: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs of the actor's last layer and the critic's values, for a loss.

        Args:
            features: Features of `n` observations.
            shown: Features of `m` more observations, for the actor only.

        Returns:
            Outputs of shape `(n + m, width)`, and values of shape `(n,)`.
        """

    def backward(self, loss: torch.Tensor) -> None:
        """Set the parameters' gradients, which must be zero before, to those of a loss of the last `forward` result."""


def torch_network(policy: ActorCriticPolicy, flat: FlatParameters) -> TorchNetwork:
    """Return the network of a policy whose parameters are in `flat`."""
    towers = _towers(policy)
    known = all(type(module) in (nn.Linear, *_ACTIVATIONS) for tower in towers for module in tower)
    return _ByHand(policy, flat) if known and sees_vectors(policy) else _ByAutograd(policy)


def towers_of(policy: ActorCriticPolicy) -> tuple[Layers, Layers]:
    """Return two functions of features, which compute the outputs of the actor and of the critic."""
    actor, critic = map(_layers_of, _towers(policy))
    return actor, critic


def _layers_of(modules: Iterable[nn.Module]) -> Layers:
    """Return the function that consecutive layers compute, without the modules' overhead if they are simple."""
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
    """Linear layers with activations between them."""

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
    """Return all layers of the actor and all layers of the critic, including the output layers."""
    extractor = policy.mlp_extractor
    return [*extractor.policy_net, policy.action_net], [*extractor.value_net, policy.value_net]


def _joined(features: Any, shown: Any) -> Any:
    return features if shown is None else torch.cat([features, shown])
