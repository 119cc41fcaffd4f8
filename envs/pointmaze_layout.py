"""Random braided mazes for many episodes at once, each a function of its episode's seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)

RIGHT, DOWN = np.array([[1, 0, -1, 0], [0, 1, 0, -1]])
"""The steps along x and along y to the four neighbours of a cell."""


def fractions(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draw numbers from 0 (included) to 1 (left out) that depend on the seed and their place alone, by splitmix64.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
    https://doi.org/10.1145/2660193.2660195

    Args:
        seeds: Shape `(k,)`, uint64.
        count: How many numbers are drawn for each seed.

    Returns:
        Shape `(k, count)`, float64.
    """
    # Hashed first, seeds that differ by a multiple of `GOLDEN` do not share a shifted sequence.
    states = _mix(seeds ^ GOLDEN)[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    return (_mix(states) >> np.uint64(11)) * 2.0**-53


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
        goals: Where the goals are, in the order in which they count, shape `(goals, 2, k)`.
    """

    blocks: np.ndarray
    starts: np.ndarray
    goals: np.ndarray


def lay_out(seeds: np.ndarray, size: int, loops: float, goals: int, jitter: float) -> Mazes:
    """Lay out one maze for each seed.

    Every cell but a corner's has a passage to one of its two neighbours on that corner's side, which joins all cells;
    then dead ends are opened, and random walls left out. Source: the binary tree algorithm and braiding, Buck 2015,
    "Mazes for Programmers", chapters 2 and 9.

    Args:
        seeds: One per episode, shape `(k,)`, uint64.
        size: Cells per side.
        loops: How likely a wall that is still there then is left out.
        goals: How many goals there are, each at least `size - 1` steps from the one before or the start.
        jitter: How far from a cell's middle the point may start, along either axis.
    """
    cells, inner = size * size, size * (size - 1)
    parts = np.cumsum([cells, 4 * cells, 2 * inner, 3, 2, goals * cells])
    tree, dead_ends, left_out, turns, start, far, offset = np.split(fractions(seeds, parts[-1] + 2), parts, axis=1)
    blocks = _tree(tree.reshape(-1, size, size) < 0.5)
    _open_dead_ends(blocks, dead_ends.reshape(-1, 4, size, size))
    blocks[:, 1::2, 2:-1:2] &= left_out[:, :inner].reshape(-1, size, size - 1) >= loops
    blocks[:, 2:-1:2, 1::2] &= left_out[:, inner:].reshape(-1, size - 1, size) >= loops
    places = [np.floor(size * start.T)]
    for lots in far.reshape(-1, goals, size, size).swapaxes(0, 1):
        places.append(_far_cells(places[-1], lots))
    starts = places[0] + 0.5 + jitter * (2.0 * offset.T - 1.0)
    return Mazes(blocks=_turn(blocks, turns < 0.5), starts=starts, goals=np.stack(places[1:]) + 0.5)


def _tree(west: np.ndarray) -> np.ndarray:
    """Join every cell to its western or northern neighbour, `west` telling which; shape `(k, size, size)`, bool."""
    side = 2 * west.shape[1] + 1
    blocks = np.ones((len(west), side, side), dtype=bool)
    blocks[:, 1::2, 1::2] = False
    blocks[:, 1::2, 2:-1:2] = ~west[:, :, 1:]
    blocks[:, 2:-1:2, 1::2] = west[:, 1:]
    # Cells of the first row and column have one way to go.
    blocks[:, 1, 1:-1] = False
    blocks[:, 1:-1, 1] = False
    return blocks


def _open_dead_ends(blocks: np.ndarray, lots: np.ndarray) -> None:
    """Take one more wall from each cell with a single passage: the one opposite, unless the maze ends there.

    Args:
        blocks: Changed in place.
        lots: What decides between the walls at either side, shape `(k, 4, size, size)`.
    """
    size = lots.shape[2]
    walls = np.stack([blocks[:, 1::2, 2::2], blocks[:, 2::2, 1::2], blocks[:, 1::2, :-1:2], blocks[:, :-1:2, 1::2]])
    episode, row, column = np.nonzero(walls.sum(axis=0) == 3)
    closed = walls[:, episode, row, column]
    within = np.stack([column < size - 1, row < size - 1, column > 0, row > 0])
    opposite = ~np.roll(closed, 2, axis=0)
    way = ((closed & within) * (1.0 + lots[episode, :, row, column].T + opposite)).argmax(axis=0)
    blocks[episode, 2 * row + 1 + DOWN[way], 2 * column + 1 + RIGHT[way]] = False


def _turn(blocks: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Put the tree's root in a random corner, and swap the axes of every other maze; `turns`: `(k, 3)`, bool."""
    rows, columns, swap = turns.T[:, :, None, None]
    blocks = np.where(rows, blocks[:, ::-1], blocks)
    blocks = np.where(columns, blocks[:, :, ::-1], blocks)
    return np.where(swap, blocks.swapaxes(1, 2), blocks)


def _far_cells(cells: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """Draw one of the cells at least `size - 1` steps from each cell; every cell has some, in a corner at least."""
    size = lots.shape[1]
    places = np.arange(size)
    distances = abs(places - cells[0][:, None, None]) + abs(places[:, None] - cells[1][:, None, None])
    row, column = np.divmod(np.where(distances >= size - 1, lots, -1.0).reshape(-1, size * size).argmax(axis=1), size)
    return np.stack([column, row])
