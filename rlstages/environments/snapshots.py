"""The state of a batch that holds nothing but arrays, plain values and one generator, as gymnasium's CartPole does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

_NUMBERS = (bool, int, float)
_SIMPLE = (*_NUMBERS, str, type(None), np.ndarray, np.random.Generator, gym.Space)
_SPEC = "spec"


def snapshot(batched: Any) -> dict[str, Any] | None:
    """Return the arrays, numbers and generator of a batch, or `None` if it holds what is not copied so simply."""
    held = {name: value for name, value in vars(batched).items() if name != _SPEC}
    if not all(isinstance(value, _SIMPLE) for value in held.values()):
        return None
    return {
        "arrays": {name: value.copy() for name, value in held.items() if isinstance(value, np.ndarray)},
        # JSON has no infinite ones; they are bounds, and stay as they are made.
        "numbers": {name: n for name, n in held.items() if isinstance(n, _NUMBERS) and math.isfinite(n)},
        "generator": dict(batched.np_random.bit_generator.state),
    }


def restore_snapshot(batched: Any, state: Mapping[str, Any]) -> None:
    """Bring a batch that was made with the same arguments, and has been reset, to where a snapshot was taken."""
    for name, value in state["arrays"].items():
        setattr(batched, name, np.array(value))
    for name, value in state["numbers"].items():
        setattr(batched, name, value)
    batched.np_random.bit_generator.state = state["generator"]
