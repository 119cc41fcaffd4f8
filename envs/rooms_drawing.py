"""Pictures of the rooms, in NumPy alone."""

from __future__ import annotations

from functools import cache

import numpy as np

from rlstages_envs.rooms_layout import CLOSED_DOOR, FLOOR, GOAL, KEY, LOCKED_DOOR, OPEN_DOOR, UNSEEN, WALL

PICTURE = 480
"""Height and width of a picture, in pixels, whatever the grid: all frames of a video must have one shape."""

SUPERSAMPLING = 4
"""Shapes are drawn this much larger and averaged, for smooth edges."""

LIGHT = 0.25
"""How far the cells that the agent sees are tinted towards white."""

BLACK = (13, 17, 23)
ROCK = (68, 76, 86)
GROUND = (33, 38, 45)
GROUT = (43, 49, 58)
BLUE = (88, 166, 255)
GOLD = (242, 204, 96)
GREEN = (63, 185, 80)
RED = (248, 81, 73)


def draw_rooms(
    cells: np.ndarray, lit: np.ndarray, position: tuple[int, int], heading: int, carrying: bool
) -> np.ndarray:
    """Draw a grid and its agent, as large as they fit.

    Args:
        cells: What each cell holds, shape `(rows, columns)`, uint8.
        lit: The cells that the agent sees, shape `(rows, columns)`, bool.
        position: Row and column of the agent.
        heading: 0 to 3: east, south, west, north.
        carrying: Whether the agent holds a key.

    Returns:
        The picture, shape `(480, 480, 3)`, uint8.
    """
    hidden = _buried(cells)
    top, bottom = np.flatnonzero(~hidden.all(axis=1))[[0, -1]]
    left, right = np.flatnonzero(~hidden.all(axis=0))[[0, -1]]
    shown = slice(top, bottom + 1), slice(left, right + 1)
    rows, columns = cells[shown].shape
    pixels = PICTURE // max(rows, columns)

    tiles = _things(pixels)[np.where(hidden, UNSEEN, cells)[shown]]
    tiles[lit[shown]] += LIGHT * (255.0 - tiles[lit[shown]])
    # The agent is drawn facing east; a quarter turn clockwise makes it face south.
    colour, cover = (np.rot90(layer, -heading) for layer in _agent(pixels, carrying))
    place = position[0] - top, position[1] - left
    tiles[place] += cover * (colour - tiles[place])

    picture = np.empty((PICTURE, PICTURE, 3), dtype=np.uint8)
    picture[:] = BLACK
    height, width = rows * pixels, columns * pixels
    above, before = (PICTURE - height) // 2, (PICTURE - width) // 2
    flat = tiles.swapaxes(1, 2).reshape(height, width, 3)
    picture[above : above + height, before : before + width] = flat.round()
    return picture


def _buried(cells: np.ndarray) -> np.ndarray:
    """Find the walls that no free cell touches, not even at a corner."""
    free = np.pad(cells != WALL, 1)
    rows, columns = cells.shape
    around = [free[r : r + rows, c : c + columns] for r in range(3) for c in range(3)]
    return np.asarray(~np.logical_or.reduce(around))


@cache
def _things(pixels: int) -> np.ndarray:
    """Draw a tile for each thing a cell may hold, shape `(8, pixels, pixels, 3)`, float64."""
    x, y = _points(pixels)
    edge = np.maximum(abs(x - 0.5), abs(y - 0.5))
    everywhere = edge >= 0
    ground = [(GROUT, everywhere), (GROUND, edge < 0.47)]
    handle = np.hypot(x - 0.72, y - 0.5) < 0.07
    keyhole = (np.hypot(x - 0.5, y - 0.4) < 0.11) | ((abs(x - 0.5) < 0.05) & (y > 0.4) & (y < 0.72))
    door = [(BLACK, everywhere), (BLUE, edge < 0.46), (BLACK, edge < 0.38), (BLUE, edge < 0.33), (BLACK, handle)]
    layers = {
        UNSEEN: [(BLACK, everywhere)],
        FLOOR: ground,
        WALL: [(ROCK, everywhere)],
        CLOSED_DOOR: door,
        OPEN_DOOR: [*ground, (BLUE, edge > 0.4)],
        LOCKED_DOOR: [(BLACK, everywhere), (GOLD, edge < 0.46), (BLACK, keyhole)],
        KEY: [*ground, (GOLD, _key(x, y))],
        GOAL: [*ground, (GREEN, edge < 0.4)],
    }
    return np.stack([_paint(layers[thing]) for thing in sorted(layers)])


@cache
def _agent(pixels: int, carrying: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw the agent, facing east, with a golden dot if it carries a key.

    Returns:
        Its colours, shape `(pixels, pixels, 3)`, and how much of each pixel it covers, `(pixels, pixels, 1)`.
    """
    x, y = _points(pixels)
    body = (x > 0.14) & (abs(y - 0.5) < 0.42 * (0.9 - x) / 0.76)
    dot = (np.hypot(x - 0.36, y - 0.5) < 0.17) & carrying
    return _paint([(RED, x >= 0), (GOLD, dot)]), _average(body[..., None].astype(float))


def _key(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which points lie on the key: a ring, a shaft and two teeth."""
    ring = abs(np.hypot(x - 0.5, y - 0.28) - 0.13) < 0.055
    shaft = (abs(x - 0.5) < 0.05) & (y > 0.4) & (y < 0.86)
    teeth = (x > 0.5) & (x < 0.68) & ((abs(y - 0.66) < 0.045) | (abs(y - 0.81) < 0.045))
    return np.asarray(ring | shaft | teeth)


def _points(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x (to the right) and y (downwards) of the points of a supersampled tile, from 0 to 1."""
    along = (np.arange(pixels * SUPERSAMPLING) + 0.5) / (pixels * SUPERSAMPLING)
    x, y = np.meshgrid(along, along)
    return x, y


def _paint(layers: list[tuple[tuple[int, int, int], np.ndarray]]) -> np.ndarray:
    """Lay colours over each other where their masks say, and average down to a tile, shape `(pixels, pixels, 3)`."""
    picture = np.zeros((*layers[0][1].shape, 3))
    for colour, mask in layers:
        picture[mask] = colour
    return _average(picture)


def _average(picture: np.ndarray) -> np.ndarray:
    """Average blocks of points to pixels; shape `(side, side, channels)` before and after."""
    pixels = len(picture) // SUPERSAMPLING
    blocks = picture.reshape(pixels, SUPERSAMPLING, pixels, SUPERSAMPLING, -1)
    return np.asarray(blocks.mean(axis=(1, 3)))
