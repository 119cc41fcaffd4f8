"""Random numbers for many episodes at once, each a function of its episode's seed: splitmix64 as a counter-based hash.

Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
https://doi.org/10.1145/2660193.2660195
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

# As arrays of no dimension: NumPy takes twice as long over few numbers when it has to convert a scalar each time.
GOLDEN, FIRST, SECOND = (
    np.array(number, np.uint64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
BY_30, BY_27, BY_31 = (np.array(number, np.uint64) for number in (30, 27, 31))


def words(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draw 64 random bits `count` times for each seed.

    Args:
        seeds: Shape `(k,)`, uint64.
        count: How many words are drawn for each.

    Returns:
        Shape `(k, count)`, uint64.
    """
    # Hashing the seeds first keeps neighbouring seeds from sharing a sequence at an offset.
    return _mix(_mix(seeds + GOLDEN)[:, None] + _counter(count))


def fractions(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draw numbers from 0 (included) to 1 (left out), shape `(k, count)`, float64."""
    return np.asarray((words(seeds, count) >> np.uint64(11)) * 2.0**-53)


class SeededDraws:
    """Whole numbers drawn one after the other, the same ones whatever other episodes are drawn with them.

    Args:
        seeds: One per episode, shape `(k,)`, uint64.
        count: How many numbers each episode needs at most.
    """

    def __init__(self, seeds: np.ndarray, count: int) -> None:
        # 31 bits of each are enough for next to no bias by the remainder, and fit numpy's usual integers.
        self._unused = (words(seeds, count) >> np.uint64(33)).astype(np.int64)

    def below(self, bound: int | np.ndarray, *shape: int) -> np.ndarray:
        """Draw integers from 0 to `bound - 1`, shape `(k, *shape)`, to which `bound` is broadcast."""
        count = math.prod(shape)
        drawn, self._unused = self._unused[:, :count], self._unused[:, count:]
        return np.asarray(drawn.reshape(len(drawn), *shape) % bound)


@cache
def _counter(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.uint64) * GOLDEN


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> BY_30)) * FIRST
    state = (state ^ (state >> BY_27)) * SECOND
    return np.asarray(state ^ (state >> BY_31))
