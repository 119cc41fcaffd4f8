"""Small policy networks in NumPy, with hand-written gradients.

The hidden layers of actor and critic have the same sizes, so both are computed together: arrays of a hidden layer have
the shape `(2, n, units)`, with the actor first. The output of the last layer has the shape `(width, n)`, because sums
over a few actions are fastest over the first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.lib.stride_tricks import as_strided
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from rlstages.learners.algorithms.on_policy.flat import FlatParameters
from rlstages.learners.normalizer import CLIP, NormalizedExtractor, Standardizer

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class _Layer:
    """`k` layers side by side: weights `(k, outputs, inputs)`, biases `(k, 1, outputs)`, and their gradients."""

    weights: np.ndarray
    biases: np.ndarray
    weight_gradients: np.ndarray
    bias_gradients: np.ndarray

    def of(self, part: slice) -> _Layer:
        return _Layer(self.weights[part], self.biases[part], self.weight_gradients[part], self.bias_gradients[part])


class Towers:
    """Hidden layers of the actor, the critic, or both side by side.

    Args:
        layers: Layers in order, beginning at the inputs.
        relu: Whether the activation is ReLU instead of tanh.
    """

    def __init__(self, layers: list[_Layer], relu: bool) -> None:
        self._layers, self._relu = layers, relu
        self._transposed = [layer.weights.transpose(0, 2, 1) for layer in layers]
        self._spaces: dict[int, list[list[np.ndarray]]] = {}

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Return the output of the last layer, shape `(k, n, units)`, for inputs of shape `(n, width)`.

        The next call overwrites it.
        """
        below = inputs[None]
        outputs = self._space(len(inputs))[0]
        for layer, weights, output in zip(self._layers, self._transposed, outputs, strict=True):
            np.matmul(below, weights, out=output)
            output += layer.biases
            if self._relu:
                np.maximum(output, 0.0, out=output)
            else:
                np.tanh(output, out=output)
            below = output
        return below

    def top(self, inputs: np.ndarray) -> np.ndarray:
        """Return the last result of `forward`, which had these inputs."""
        return self._space(len(inputs))[0][-1] if self._layers else inputs[None]

    def above(self, rows: int) -> np.ndarray | None:
        """Return the array in which `backward` expects the gradient of the output, or `None` if there are no layers."""
        return self._space(rows)[1][-1] if self._layers else None

    def backward(self, inputs: np.ndarray) -> None:
        """Set the parameters' gradients from the gradient in `above`; call `forward` for the same inputs before."""
        outputs, gradients, scratch, (ones,) = self._space(len(inputs))
        for index in range(len(self._layers) - 1, -1, -1):
            layer, output, gradient, slope = self._layers[index], outputs[index], gradients[index], scratch[index]
            if self._relu:
                np.sign(output, out=slope)
            else:
                np.multiply(output, output, out=slope)
                np.subtract(1.0, slope, out=slope)
            gradient *= slope
            below = outputs[index - 1] if index else inputs[None]
            np.matmul(gradient.transpose(0, 2, 1), below, out=layer.weight_gradients)
            # A matrix product sums over rows faster than `sum`.
            np.matmul(ones, gradient, out=layer.bias_gradients)
            if index:
                np.matmul(gradient, layer.weights, out=gradients[index - 1])

    def _space(self, rows: int) -> list[list[np.ndarray]]:
        """Return memory for outputs, gradients and intermediate results of so many rows, and a vector of ones."""
        if rows not in self._spaces:
            if len(self._spaces) > 8:
                self._spaces.clear()
            shapes = [(len(layer.weights), rows, layer.weights.shape[1]) for layer in self._layers]
            space = [[np.empty(shape, np.float32) for shape in shapes] for _ in range(3)]
            self._spaces[rows] = [*space, [np.ones((1, rows), np.float32)]]
        return self._spaces[rows]


class NumpyNetwork:
    """The layers of a policy, on memory shared with its torch parameters.

    Args:
        policy: Policy with linear layers, a features extractor without parameters, and vectors or numbers as
            observations.

    Attributes:
        flat: All parameters. From now on, the policy's parameters are views of it.
        log_std: Log standard deviations of a continuous policy, shape `(width, 1)`, and their gradient; else `None`.
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self._policy = policy
        actor, critic = ([m for m in net if isinstance(m, nn.Linear)] for net in _hidden(policy))
        pairs = list(zip(actor, critic, strict=True))
        order: list[Any] = [part for one, other in pairs for part in (one.weight, other.weight, one.bias, other.bias)]
        ends: list[Any] = [policy.action_net, policy.value_net]
        order += [parameter for end in ends for parameter in (end.weight, end.bias)]
        if hasattr(policy, "log_std"):
            order.append(policy.log_std)
        self.flat = FlatParameters(order)
        values = [_array(view) for view in self.flat.views(self.flat.values)]
        gradients = [_array(view) for view in self.flat.gradient_views]
        layers = [_Layer(*_pair(values[i : i + 4]), *_pair(gradients[i : i + 4])) for i in range(0, 4 * len(pairs), 4)]
        relu = any(isinstance(module, nn.ReLU) for module in _hidden(policy)[0])
        self.both = Towers(layers, relu)
        self._actor = Towers([layer.of(slice(0, 1)) for layer in layers], relu)
        self._critic = Towers([layer.of(slice(1, 2)) for layer in layers], relu)
        rest, rest_gradients = values[4 * len(pairs) :], gradients[4 * len(pairs) :]
        self._action_weights, action_biases, value_weights, self._value_bias = rest[:4]
        self._action_biases, self._value_weights = action_biases[:, None], value_weights[0]
        self._action_weight_gradients, self._action_bias_gradients, value_gradients = rest_gradients[:3]
        self._value_gradients, self._value_bias_gradient = value_gradients[0], rest_gradients[3]
        self.log_std = rest[4][:, None] if len(rest) > 4 else None
        self.log_std_gradient = rest_gradients[4] if len(rest) > 4 else None

    @property
    def width(self) -> int:
        """Number of outputs of the actor."""
        return len(self._action_weights)

    def act(self, inputs: np.ndarray, raw: np.ndarray) -> None:
        """Write the actor's outputs for inputs of shape `(n, inputs)` into `raw`, shape `(width, n)`."""
        np.matmul(self._action_weights, self._actor.forward(inputs)[0].T, out=raw)
        raw += self._action_biases

    def actor(self, inputs: np.ndarray) -> np.ndarray:
        """Return the actor's outputs, shape `(width, n)`."""
        outputs = np.empty((self.width, len(inputs)), np.float32)
        for start in range(0, len(inputs), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            self.act(inputs[part], outputs[:, part])
        return outputs

    def values(self, inputs: np.ndarray) -> np.ndarray:
        """Return the critic's values, shape `(n,)`."""
        parts = [inputs[start : start + ROWS_AT_ONCE] for start in range(0, len(inputs), ROWS_AT_ONCE)]
        found = [self._critic.forward(part)[0] @ self._value_weights for part in parts]
        return np.concatenate(found) + self._value_bias if found else np.empty(0, np.float32)

    def forward(self, inputs: np.ndarray, raw: np.ndarray, values: np.ndarray) -> None:
        """Write the outputs of actor and critic for a batch, as `backward` needs it."""
        tops = self.both.forward(inputs)
        np.matmul(self._action_weights, tops[0].T, out=raw)
        raw += self._action_biases
        np.dot(tops[-1], self._value_weights, out=values)
        values += self._value_bias

    def backward(self, inputs: np.ndarray, raw_gradients: np.ndarray, value_gradients: np.ndarray) -> None:
        """Set all gradients except that of `log_std`.

        Args:
            inputs: Inputs of the last call of `forward`.
            raw_gradients: Gradient by the actor's outputs, shape `(width, n)`.
            value_gradients: Gradient by the critic's values, shape `(n,)`.
        """
        tops = self.both.top(inputs)
        np.matmul(raw_gradients, tops[0], out=self._action_weight_gradients)
        np.add.reduce(raw_gradients, axis=1, out=self._action_bias_gradients)
        np.dot(value_gradients, tops[-1], out=self._value_gradients)
        np.add.reduce(value_gradients, out=self._value_bias_gradient, keepdims=True)
        above = self.both.above(len(inputs))
        if above is not None:
            np.matmul(raw_gradients.T, self._action_weights, out=above[0])
            np.multiply(value_gradients[:, None], self._value_weights, out=above[1])
            self.both.backward(inputs)

    def actor_backward(self, inputs: np.ndarray, raw_gradients: np.ndarray) -> None:
        """Set the actor's gradients, except that of `log_std`, from the gradient by its outputs; call `act` before."""
        np.matmul(raw_gradients, self._actor.top(inputs)[0], out=self._action_weight_gradients)
        np.add.reduce(raw_gradients, axis=1, out=self._action_bias_gradients)
        above = self._actor.above(len(inputs))
        if above is not None:
            np.matmul(raw_gradients.T, self._action_weights, out=above[0])
            self._actor.backward(inputs)

    def critic_step(self, inputs: np.ndarray, returns: np.ndarray) -> float:
        """Set the critic's gradients of the mean squared error, and return this error."""
        top = self._critic.forward(inputs)[0]
        off = top @ self._value_weights + self._value_bias - returns
        loss = float(np.dot(off, off)) / len(off)
        off *= 2 / len(off)
        np.dot(off, top, out=self._value_gradients)
        np.add.reduce(off, out=self._value_bias_gradient, keepdims=True)
        above = self._critic.above(len(inputs))
        if above is not None:
            np.multiply(off[:, None], self._value_weights, out=above[0])
            self._critic.backward(inputs)
        return loss


def array_features(policy: ActorCriticPolicy) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from observations to the inputs of the first layers, float32 of shape `(n, width)`.

    The function uses the policy's observation statistics as of this call.
    """
    space = policy.observation_space
    if isinstance(space, spaces.Discrete):
        table = np.eye(int(space.n), dtype=np.float32)
        # Older buffers store integers as float32.
        return lambda observations: table[observations.reshape(-1).astype(np.int64, copy=False)]
    extractor = policy.features_extractor
    if not isinstance(extractor, NormalizedExtractor):
        return lambda observations: observations.reshape(len(observations), -1).astype(np.float32, copy=False)
    statistics: Any = extractor.standardizers["obs_"]
    assert isinstance(statistics, Standardizer)
    mean = statistics.mean.numpy().copy()
    spread = statistics.spread().numpy()

    def standardize(observations: np.ndarray) -> np.ndarray:
        seen: np.ndarray = (observations.astype(np.float32, copy=False) - mean) / spread
        np.minimum(np.maximum(seen, -CLIP, out=seen), CLIP, out=seen)
        return seen.reshape(len(observations), -1)

    return standardize


def _hidden(policy: ActorCriticPolicy) -> tuple[list[nn.Module], list[nn.Module]]:
    extractor = policy.mlp_extractor
    return list(extractor.policy_net), list(extractor.value_net)


def _array(view: torch.Tensor) -> np.ndarray:
    array: np.ndarray = view.detach().numpy()
    return array


def _pair(arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights and the biases of actor and critic as one array each, without copying."""
    weights, other_weights, biases, other_biases = arrays
    return _stack(weights, other_weights), _stack(biases, other_biases)[:, None, :]


def _stack(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    apart = other.__array_interface__["data"][0] - one.__array_interface__["data"][0]
    return as_strided(one, (2, *one.shape), (apart, *one.strides))
