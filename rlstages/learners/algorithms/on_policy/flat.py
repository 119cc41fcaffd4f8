"""All parameters of a policy in one vector, and the optimiser's arithmetic on it.

A torch optimiser walks over the parameters one by one, which costs more than its arithmetic when they are small. Here
the policy's parameters, their gradients and the optimiser's moments are views of four vectors, so that a step is a
handful of operations, and the policy and its optimiser stay what they are to everyone else: saved, exported and loaded
as ever. The vectors are plain memory, so NumPy can work on the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Of 4 bytes: torch's own tensors begin at multiples of 64 bytes, and matrix products may round by their place.
ALIGNMENT = 16
_MOMENTS = {torch.optim.Adam: ("exp_avg", "exp_avg_sq"), torch.optim.RMSprop: ("square_avg",)}


@contextmanager
def numpy_arithmetic() -> Iterator[None]:
    """Let NumPy compute without warnings, and with zeros for numbers below 1e-38, which processors are slow at.

    The moments of weights whose inputs are rarely on decay to such numbers; steps were eight times slower with them.
    """
    flushed = np.float32(1e-38) * np.float32(0.01) == 0
    torch.set_flush_denormal(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        torch.set_flush_denormal(bool(flushed))


class FlatParameters:
    """Parameters that are views of one vector, as their gradients are of another.

    Args:
        parameters: All float32 and on one device; each gets new memory, with the values that it has.

    Attributes:
        values: The vector, shape `(n,)`, with zeros between the parameters.
        gradients: Likewise.
        gradient_views: Of the single parameters.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._offsets: list[int] = []
        size = 0
        for parameter in self.parameters:
            self._offsets.append(size)
            size += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        device = self.parameters[0].device
        self.values, self.gradients = torch.zeros(size, device=device), torch.zeros(size, device=device)
        self.gradient_views = self.views(self.gradients)
        for parameter, view in zip(self.parameters, self.views(self.values), strict=True):
            view.copy_(parameter.data)
            parameter.data = view

    def views(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Return the parts of a vector like `values`, with the parameters' shapes."""
        return [
            vector[start : start + parameter.numel()].view(parameter.shape)
            for start, parameter in zip(self._offsets, self.parameters, strict=True)
        ]

    def zero_gradients(self) -> None:
        """Set the gradients to zero, and take them back from whoever replaced them."""
        for parameter, view in zip(self.parameters, self.gradient_views, strict=True):
            parameter.grad = view
        self.gradients.zero_()


class FlatOptimizer:
    """The arithmetic of torch's Adam or RMSprop on flat vectors.

    torch's optimiser keeps the state: its moments are views of this object's, and `publish` tells it how many steps
    were made.

    Args:
        optimizer: With one group of parameters, without weight decay, momentum and the like.
        flat: Holds the optimiser's parameters, and perhaps others, which do not move while their gradients are zero.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, flat: FlatParameters) -> None:
        self.optimizer, self.flat = optimizer, flat
        self._names = _MOMENTS[type(optimizer)]
        self._moments = [torch.zeros_like(flat.values) for _ in self._names]
        mine = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
        views = zip(flat.parameters, *(flat.views(moment) for moment in self._moments), strict=True)
        self._owned = [(parameter, parts) for parameter, *parts in views if id(parameter) in mine]
        self._steps = torch.zeros(len(self._owned))
        self._scratch = torch.zeros_like(flat.values)
        self._arrays: list[np.ndarray] = []
        if flat.values.device.type == "cpu":
            vectors = [flat.values, flat.gradients, self._scratch, *self._moments]
            self._arrays = [vector.numpy() for vector in vectors]
        self.count = 0
        self._take_over()

    @property
    def in_force(self) -> bool:
        """Whether the optimiser's state is still this object's: loading one replaces it, and others may make steps."""
        state = self.optimizer.state
        return bool((self._steps == self.count).all()) and all(
            state.get(parameter, {}).get(name) is part
            for parameter, parts in self._owned
            for name, part in zip(self._names, parts, strict=True)
        )

    def step(self) -> None:
        """Move the parameters by torch's operations, in torch's order: to the same bits."""
        group, gradients, scratch = self.optimizer.param_groups[0], self.flat.gradients, self._scratch
        self.count += 1
        if len(self._moments) == 2:
            mean, square = self._moments
            beta1, beta2 = group["betas"]
            mean.lerp_(gradients, 1 - beta1)
            square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
            torch.sqrt(square, out=scratch)
            scratch.div_((1 - beta2**self.count) ** 0.5).add_(group["eps"])
            self.flat.values.addcdiv_(mean, scratch, value=-(group["lr"] / (1 - beta1**self.count)))
        else:
            (square,) = self._moments
            square.mul_(group["alpha"]).addcmul_(gradients, gradients, value=1 - group["alpha"])
            torch.sqrt(square, out=scratch)
            scratch.add_(group["eps"])
            self.flat.values.addcdiv_(gradients, scratch, value=-group["lr"])

    def clip(self, most: float) -> float:
        """Scale the gradients down to a norm, with NumPy; return the norm that they had."""
        gradients = self._arrays[1]
        norm = math.sqrt(np.dot(gradients, gradients))
        scale = most / (norm + 1e-6)
        if scale < 1:
            gradients *= scale
        return norm

    def numpy_step(self) -> None:
        """Do what `step` does with NumPy: the same formulas, rounded a little differently."""
        group = self.optimizer.param_groups[0]
        values, gradients, scratch, *moments = self._arrays
        self.count += 1
        square = moments[-1]
        beta2 = group["betas"][1] if len(moments) == 2 else group["alpha"]
        np.multiply(gradients, gradients, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        if len(moments) == 2:
            beta1, mean = group["betas"][0], moments[0]
            # Both corrections in the step size and in epsilon, which saves a division of the whole vector.
            correction = (1 - beta2**self.count) ** 0.5
            rate, epsilon = group["lr"] * correction / (1 - beta1**self.count), group["eps"] * correction
            mean *= beta1
            gradients *= 1 - beta1
            mean += gradients
            ahead = mean
        else:
            rate, epsilon, ahead = group["lr"], group["eps"], gradients
        np.sqrt(square, out=scratch)
        scratch += epsilon
        np.divide(ahead, scratch, out=scratch)
        scratch *= rate
        values -= scratch

    def publish(self) -> None:
        """Tell torch's optimiser how many steps were made."""
        self._steps.fill_(self.count)

    def _take_over(self) -> None:
        """Copy the optimiser's state, if it has any, and put views in its place."""
        for row, (parameter, parts) in enumerate(self._owned):
            state: dict[str, Any] = self.optimizer.state[parameter]
            for name, part in zip(self._names, parts, strict=True):
                if name in state:
                    part.copy_(state[name])
                state[name] = part
            if "step" in state:
                self.count = int(state["step"])
            state["step"] = self._steps[row]
        self.publish()
