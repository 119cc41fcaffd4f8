"""Random braided mazes for many episodes at once, each a function of its episode's seed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class SeededDraws:
    """Fractions that depend on each episode's seed and their place in its sequence alone, by splitmix64.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
    https://doi.org/10.1145/2660193.2660195

    Args:
        seeds: One per episode, shape `(k,)`, uint64.
    """

    GOLDEN = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, seeds: np.ndarray) -> None:
        # Hashed first, seeds that differ by a multiple of `GOLDEN` do not share a shifted sequence.
        self._states = self._mix(seeds ^ self.GOLDEN)
        self._drawn = 0

    def fractions(self, *shape: int) -> np.ndarray:
        """Draw numbers from 0 (included) to 1 (left out), shape `(k, *shape)`."""
        count = math.prod(shape)
        places = np.arange(self._drawn + 1, self._drawn + 1 + count).astype(np.uint64)
        self._drawn += count
        mixed = self._mix(self._states[:, None] + places * self.GOLDEN)
        return (mixed >> np.uint64(11)).astype(np.float64).reshape(-1, *shape) * 2.0**-53

    @staticmethod
    def _mix(state: np.ndarray) -> np.ndarray:
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


class Mazes(NamedTuple):
    """The mazes of `k` episodes.

    Attributes:
        blocks: Which blocks are solid, shape `(k, 2 * size + 1, 2 * size + 1)`, bool, rows (y) first. Odd rows and
            columns are the cells', even ones the walls' between them.
        starts: Where the points start, shape `(2, k)`: x and y, in cells.
        goals: Where the goals are, shape `(2, k)`.
    """

    blocks: np.ndarray
    starts: np.ndarray
    goals: np.ndarray


def lay_out(seeds: np.ndarray, size: int, loops: float, jitter: float) -> Mazes:
    """Lay out one maze for each seed.

    Every cell but a corner's has a passage to one of its two neighbours on that corner's side, which joins all cells
    (the binary tree algorithm: Buck 2015, "Mazes for Programmers", chapter 2); then random walls are left out.

    Args:
        seeds: One per episode, shape `(k,)`, uint64.
        size: Cells per side.
        loops: How likely a wall that the tree leaves standing is left out.
        jitter: How far from a cell's middle the point may start, along either axis.
    """
    draws = SeededDraws(seeds)
    blocks = _turn(draws, _walls(draws, size, loops))
    starts = np.floor(size * draws.fractions(2)).T
    goals = _far_cells(draws, starts, size)
    offsets = jitter * (2.0 * draws.fractions(2).T - 1.0)
    return Mazes(blocks=blocks, starts=starts + 0.5 + offsets, goals=goals + 0.5)


def _walls(draws: SeededDraws, size: int, loops: float) -> np.ndarray:
    """Draw the blocks, with the tree's root in the first row and column."""
    west = draws.fractions(size, size) < 0.5
    left_out = draws.fractions(2, size, size) < loops
    side = 2 * size + 1
    blocks = np.ones((len(west), side, side), dtype=bool)
    blocks[:, 1::2, 1::2] = False
    blocks[:, 1::2, 2:-1:2] = ~(west | left_out[:, 0])[:, :, 1:]
    blocks[:, 2:-1:2, 1::2] = ~(~west | left_out[:, 1])[:, 1:]
    # The first row and column have one way to go.
    blocks[:, 1, 1:-1] = False
    blocks[:, 1:-1, 1] = False
    return blocks


def _turn(draws: SeededDraws, blocks: np.ndarray) -> np.ndarray:
    """Put the tree's root in a random corner, and swap the axes of every other maze."""
    rows, columns, swap = (draws.fractions(3) < 0.5).T[:, :, None, None]
    blocks = np.where(rows, blocks[:, ::-1], blocks)
    blocks = np.where(columns, blocks[:, :, ::-1], blocks)
    return np.where(swap, blocks.swapaxes(1, 2), blocks)


def _far_cells(draws: SeededDraws, cells: np.ndarray, size: int) -> np.ndarray:
    """Draw one of the cells at least `size - 1` steps from each cell; every cell has some, in a corner at least."""
    x, y = np.arange(size), np.arange(size)[:, None]
    distances = abs(x - cells[0][:, None, None]) + abs(y - cells[1][:, None, None])
    lots = np.where(distances >= size - 1, 1.0 + draws.fractions(size, size), 0.0)
    row, column = np.divmod(lots.reshape(len(lots), -1).argmax(axis=1), size)
    return np.stack([column, row])
