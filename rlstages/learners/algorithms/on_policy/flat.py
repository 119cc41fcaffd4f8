"""All parameters of a policy in one vector, and the optimiser's arithmetic on it.

A torch optimiser loops over the parameters, and for small parameters this loop costs more than the arithmetic. Here the
policy's parameters, their gradients and the optimiser's moments are views of four flat vectors, so one step takes only
a few operations. Other code sees a normal policy and a normal optimiser, and saves, exports and loads them as usual.
The vectors are plain memory, so NumPy can work on the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# In units of 4 bytes. torch aligns tensors to 64 bytes, and the rounding of matrix products may depend on alignment.
ALIGNMENT = 16
_MOMENTS = {torch.optim.Adam: ("exp_avg", "exp_avg_sq"), torch.optim.RMSprop: ("square_avg",)}


@contextmanager
def numpy_arithmetic() -> Iterator[None]:
    """Switch off NumPy's warnings, and flush numbers below 1e-38 to zero (denormals, on which processors are slow).

    The moments of weights whose inputs are rarely active decay to such numbers, which made steps eight times slower.
    """
    flushed = np.float32(1e-38) * np.float32(0.01) == 0
    torch.set_flush_denormal(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        torch.set_flush_denormal(bool(flushed))


class FlatParameters:
    """Parameters as views of one vector, and their gradients as views of another.

    Args:
        parameters: Parameters of type float32 on one device. Each keeps its values and gets new memory.

    Attributes:
        values: Vector of the parameters, shape `(n,)`, with zeros as padding between them.
        gradients: Vector of the gradients, in the same layout.
        gradient_views: Views of the gradients, one for each parameter.
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
        """Return views of a vector in the layout of `values`, with the parameters' shapes."""
        return [
            vector[start : start + parameter.numel()].view(parameter.shape)
            for start, parameter in zip(self._offsets, self.parameters, strict=True)
        ]

    def zero_gradients(self) -> None:
        """Set the gradients to zero, and restore the parameters' `grad` if other code has replaced it."""
        for parameter, view in zip(self.parameters, self.gradient_views, strict=True):
            parameter.grad = view
        self.gradients.zero_()


class FlatOptimizer:
    """The arithmetic of torch's Adam or RMSprop on flat vectors.

    The state stays in torch's optimiser: its moments are views of this object's vectors, and `publish` sets its step
    counter.

    Args:
        optimizer: Optimiser with one parameter group, without weight decay, momentum and similar options.
        flat: Flat parameters, which include the optimiser's. Others do not move while their gradients are zero.
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
        """Whether the optimiser's state still consists of this object's views; loading a state ends that."""
        state = self.optimizer.state
        return bool((self._steps == self.count).all()) and all(
            state.get(parameter, {}).get(name) is part
            for parameter, parts in self._owned
            for name, part in zip(self._names, parts, strict=True)
        )

    def step(self) -> None:
        """Make a step with torch's operations in torch's order, for bit-identical results."""
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
        """Clip the norm of the gradients with NumPy, and return the norm before clipping."""
        gradients = self._arrays[1]
        norm = math.sqrt(np.dot(gradients, gradients))
        scale = most / (norm + 1e-6)
        if scale < 1:
            gradients *= scale
        return norm

    def numpy_step(self) -> None:
        """Make a step with NumPy: the same formulas as in `step`, with slightly different rounding."""
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
            # Apply both bias corrections to the step size and epsilon, which saves a division of the whole vector.
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
        """Set the step counter of torch's optimiser."""
        self._steps.fill_(self.count)

    def _take_over(self) -> None:
        """Copy the optimiser's state, if it has any, into the vectors, and replace it by views of them."""
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
