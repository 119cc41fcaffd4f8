"""Random mazes of free-standing walls for many episodes at once, each a function of its episode's seed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rlstages_envs.draws import fractions

ROUNDS = 2
"""How often walls are looked for between the posts that have none yet; more would find few others."""

NEVER, CHOSEN = -1.0, 2.0
"""The lots of a wall that has no place, and of one that has."""


class Mazes(NamedTuple):
    """The mazes of `k` episodes.

    Attributes:
        blocks: Which blocks are solid, shape `(k, 2 * size + 1, 2 * size + 1)`, bool, rows (y) first. Odd rows and
            columns are the cells', even ones those of the walls between them.
        starts: Where the points start, shape `(2, k)`: x and y, in cells.
        goals: Where the goals are, in the order in which they count, shape `(goals, 2, k)`.
    """

    blocks: np.ndarray
    starts: np.ndarray
    goals: np.ndarray


def lay_out(seeds: np.ndarray, size: int, walls: float, goals: int, jitter: float) -> Mazes:
    """Lay out one maze for each seed.

    Args:
        seeds: One per episode, shape `(k,)`, uint64.
        size: Cells per side.
        walls: How likely each wall is kept of those that fit in without touching each other.
        goals: How many goals there are, each at least `size - 1` steps from the one before or the start.
        jitter: How far from a cell's middle the point may start, along either axis.
    """
    posts = size - 1
    shapes = [(posts, posts - 1), (posts - 1, posts), (posts, posts - 1), (posts - 1, posts), (2,), (2,)]
    shapes.append((goals, size, size))
    counts = [math.prod(shape) for shape in shapes]
    parts = np.split(fractions(seeds, sum(counts)), np.cumsum(counts[:-1]), axis=1)
    across, along, keep_across, keep_along, start, offset, far = (
        part.reshape(len(seeds), *shape) for part, shape in zip(parts, shapes, strict=True)
    )
    across, along = _match(across, along)
    blocks = np.zeros((len(seeds), 2 * size + 1, 2 * size + 1), dtype=bool)
    blocks[:, ::2, ::2] = blocks[:, [0, -1]] = blocks[:, :, [0, -1]] = True
    blocks[:, 2:-1:2, 3:-2:2] = across & (keep_across < walls)
    blocks[:, 3:-2:2, 2:-1:2] = along & (keep_along < walls)

    places = [np.floor(size * start.T)]
    for lots in far.swapaxes(0, 1):
        places.append(_far_cells(places[-1], lots))
    starts = places[0] + 0.5 + jitter * (2.0 * offset.T - 1.0)
    return Mazes(blocks=blocks, starts=starts, goals=np.stack(places[1:]) + 0.5)


def _match(across: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose pairs of neighbouring posts, none of them in two pairs: greedily, the greatest lots first.

    Args:
        across: The lots of pairs in a row, shape `(k, posts, posts - 1)`.
        along: The lots of pairs in a column, shape `(k, posts - 1, posts)`.

    Returns:
        Which pairs are chosen, of the same shapes, bool.
    """
    episodes, posts = across.shape[:2]
    # A margin of pairs that lead nowhere gives every post four.
    rows = np.full((episodes, posts, posts + 1), NEVER)
    columns = np.full((episodes, posts + 1, posts), NEVER)
    rows[:, :, 1:-1], columns[:, 1:-1] = across, along
    across, along = rows[:, :, 1:-1], columns[:, 1:-1]
    for _ in range(ROUNDS):
        for lots, (low, high) in zip((across, along), _best_at_ends(rows, columns), strict=True):
            lots[(lots == low) & (lots == high) & (lots != NEVER)] = CHOSEN
        for lots, (low, high) in zip((across, along), _best_at_ends(rows, columns), strict=True):
            lots[(np.maximum(low, high) == CHOSEN) & (lots != CHOSEN)] = NEVER
    return across == CHOSEN, along == CHOSEN


def _best_at_ends(rows: np.ndarray, columns: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return, for the pairs in rows and for those in columns, the greatest lot that either of their posts is in."""
    best: np.ndarray = np.maximum(rows[:, :, :-1], rows[:, :, 1:])
    np.maximum(best, columns[:, :-1], out=best)
    np.maximum(best, columns[:, 1:], out=best)
    return (best[:, :, :-1], best[:, :, 1:]), (best[:, :-1], best[:, 1:])


def _far_cells(cells: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """Draw one of the cells at least `size - 1` steps from each cell; every cell has some, in a corner at least."""
    size = lots.shape[1]
    places = np.arange(size)
    distances = abs(places - cells[0][:, None, None]) + abs(places[:, None] - cells[1][:, None, None])
    row, column = np.divmod(np.where(distances >= size - 1, lots, -1.0).reshape(-1, size * size).argmax(axis=1), size)
    return np.stack([column, row])
