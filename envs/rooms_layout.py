"""Random chains of rooms for many episodes at once, each a function of its episode's seed."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from rlstages_envs.draws import SeededDraws

UNSEEN, FLOOR, WALL, CLOSED_DOOR, OPEN_DOOR, LOCKED_DOOR, KEY, GOAL = range(8)
"""What a cell of the grid or of a view holds; `UNSEEN` is for views only."""

HEADINGS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
"""The step (row, column) of headings 0 to 3: east, south, west, north, so that +1 turns right."""

MIN_ROOMS, MAX_ROOMS = 2, 10
SHORTEST_SIDE = 3


class Layouts(NamedTuple):
    """The layouts of `k` episodes.

    Attributes:
        cells: What each cell holds, shape `(k, side, side)`, uint8.
        positions: Where the agents start, as an index into the flattened cells, shape `(k,)`.
        headings: Which way they face, 0 to 3, shape `(k,)`.
        errands: What an agent has to reach in turn, as such indices: each locked door's key and the door, and at last
            the goal; shape `(k, 2 * keys + 1)`.
    """

    cells: np.ndarray
    positions: np.ndarray
    headings: np.ndarray
    errands: np.ndarray


def grid_side(rooms: int, size: int, margin: int) -> int:
    """Return how many cells a side of the grid needs for any walk of that many rooms, with a margin around it."""
    return rooms * (size + 1) + 1 + 2 * margin


def lay_out(seeds: np.ndarray, rooms: int, size: int, keys: int, margin: int) -> Layouts:
    """Lay out one chain of rooms for each seed.

    The rooms lie along a random self-avoiding walk on a lattice whose rows and columns have random widths. A door
    joins each room to the next, anywhere on their common wall; `keys` random ones are locked. The key of each lies
    in a random room between the previous locked door and its own, so the agent never meets two keys at once.

    Args:
        seeds: One per episode, shape `(k,)`, uint64.
        rooms: Length of the chain.
        size: Longest inner side of a room, in cells.
        keys: How many doors are locked.
        margin: How many rows of wall lie around the grid.
    """
    draws = SeededDraws(seeds, 8 * rooms + 8)
    episodes = np.arange(len(seeds))[:, None]
    side = grid_side(rooms, size, margin)
    walks = self_avoiding_walks(rooms)
    walk = walks[draws.below(len(walks))]
    shortest = max(SHORTEST_SIDE, size - 2)
    # Axis 1 tells rows from columns in all that follows; of `widths`, axis 2 runs over the lattice, else over rooms.
    widths = shortest + draws.below(size - shortest + 1, 2, rooms)
    chosen = episodes[..., None], np.arange(2)[:, None], walk
    sides, corners = widths[chosen], (margin + (widths + 1).cumsum(axis=2) - widths)[chosen]

    cells = np.full((len(seeds), side * side), WALL, dtype=np.uint8)
    # Clipping makes a small room's surplus cells repeat its last ones.
    inside = corners[..., None] + np.minimum(np.arange(size), sides[..., None] - 1)
    floor = inside[:, 0, :, :, None] * side + inside[:, 1, :, None, :]
    cells[episodes[:, :, None, None], floor] = FLOOR

    step, near = walk[:, :, 1:] - walk[:, :, :-1], sides[:, :, :-1]
    across = np.where(step > 0, near, np.where(step < 0, -1, draws.below(near, 2, rooms - 1)))
    across += corners[:, :, :-1]
    doors = across[:, 0] * side + across[:, 1]
    cells[episodes, doors] = CLOSED_DOOR
    locked, key_rooms = _lock(draws, rooms, keys)

    # One thing in each place: the agent in the first room, the goal in the last, then the keys.
    places = np.zeros((len(seeds), 2 + keys), dtype=np.int64)
    places[:, 1], places[:, 2:] = rooms - 1, key_rooms
    room, corner = sides[episodes, :, places], corners[episodes, :, places]
    spots = draws.below(room[..., 0] * room[..., 1] - (places == 0), 2 + keys)
    if keys:
        # A key in the first room skips the agent's cell, so that no two things share one.
        spots[:, 2:] += (key_rooms == 0) & (spots[:, 2:] >= spots[:, :1])
    row, column = np.divmod(spots, room[..., 1])
    taken = (corner[..., 0] + row) * side + corner[..., 1] + column

    errands = np.empty((len(seeds), 2 * keys + 1), dtype=np.int64)
    errands[:, -1] = taken[:, 1]
    cells[episodes, errands[:, -1:]] = GOAL
    if keys:
        errands[:, :-1:2], errands[:, 1::2] = taken[:, 2:], doors[episodes, locked]
        cells[episodes, errands[:, :-1:2]] = KEY
        cells[episodes, errands[:, 1::2]] = LOCKED_DOOR
    return Layouts(
        cells=cells.reshape(len(seeds), side, side),
        positions=taken[:, 0],
        headings=draws.below(len(HEADINGS)),
        errands=errands,
    )


@cache
def self_avoiding_walks(rooms: int) -> np.ndarray:
    """Return every self-avoiding walk over `rooms` lattice points, shape `(count, 2, rooms)`, from 0 on either axis."""
    walks = np.zeros((1, 1, 2), dtype=np.int64)
    for _ in range(rooms - 1):
        ends = walks[:, -1, None] + HEADINGS
        free = ~(walks[:, :, None] == ends[:, None]).all(axis=3).any(axis=1)
        which, heading = np.nonzero(free)
        walks = np.concatenate([walks[which], ends[which, heading][:, None]], axis=1)
    return np.moveaxis(walks - walks.min(axis=1, keepdims=True), 1, 2)


def _lock(draws: SeededDraws, rooms: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the locked doors and the rooms of their keys, each `(k, keys)`, in the order of the chain."""
    lots = draws.below(2**31, rooms - 1)
    if not keys:
        none = np.empty((len(lots), 0), dtype=np.int64)
        return none, none
    locked = np.sort(np.argsort(lots, axis=1)[:, :keys], axis=1)
    # Door `d` leads out of room `d`.
    earliest = np.concatenate([np.zeros_like(locked[:, :1]), locked[:, :-1] + 1], axis=1)
    return locked, earliest + draws.below(locked - earliest + 1, keys)
