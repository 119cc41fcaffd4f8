"""Pictures of a maze, drawn with NumPy alone."""

from __future__ import annotations

import numpy as np

WIDTH = 480
"""About how many pixels a picture is wide; a cell is always a whole number of them."""

FINER = 3
"""Shapes are drawn this much finer and then averaged, which smooths their edges."""

FLOOR_COLOUR = (246, 244, 239)
WALL_COLOUR = (62, 71, 89)
RAY_COLOUR = (236, 209, 158)
TRAIL_COLOUR = (120, 158, 214)
GOAL_COLOUR = (76, 165, 112)
LATER_COLOUR = (190, 219, 201)
POINT_COLOUR = (208, 74, 62)


class Canvas:
    """A picture of a square of `size` cells, on which shapes are drawn in units of cells.

    Args:
        size: How many cells the picture is wide and high.
        colour: The background.
    """

    def __init__(self, size: int, colour: tuple[int, int, int]) -> None:
        self.scale = FINER * max(8, WIDTH // size)
        self.pixels = np.full((size * self.scale, size * self.scale, 3), colour, dtype=np.uint8)
        self.centres = (np.arange(size * self.scale) + 0.5) / self.scale

    def disc(self, centre: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
        """Draw a filled disc around `centre`, shape `(2,)`: x and y."""
        self.line(centre, centre, radius, colour)

    def line(self, start: np.ndarray, end: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
        """Draw a line with round ends; `radius` is half its thickness."""
        low, high = np.minimum(start, end) - radius, np.maximum(start, end) + radius
        columns, rows = (slice(*np.searchsorted(self.centres, ends)) for ends in zip(low, high, strict=True))
        x, y = self.centres[columns] - start[0], self.centres[rows, None] - start[1]
        along = end - start
        share = np.clip((x * along[0] + y * along[1]) / max(along @ along, 1e-12), 0.0, 1.0)
        near = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 <= radius**2
        self.pixels[rows, columns][near] = colour

    def finish(self) -> np.ndarray:
        """Return the picture, shape `(height, width, 3)`, uint8."""
        side = len(self.pixels) // FINER
        rows: np.ndarray = self.pixels.reshape(side, FINER, -1).sum(axis=1, dtype=np.uint16)
        total: np.ndarray = rows.reshape(side, side, FINER, 3).sum(axis=2, dtype=np.uint16)
        return (total // FINER**2).astype(np.uint8)


def draw_maze(
    blocks: np.ndarray,
    wall: float,
    goals: np.ndarray,
    radius: float,
    point: tuple[np.ndarray, float],
    ray_ends: np.ndarray,
    trail: np.ndarray,
) -> np.ndarray:
    """Draw one copy; all lengths are in cells.

    Args:
        blocks: Which blocks are solid, shape `(2 * size + 1, 2 * size + 1)`, bool.
        wall: Half the thickness of a wall.
        goals: The middles of the goals that are left, the next one first, shape `(goals, 2)`.
        radius: The goals' radius.
        point: The point's middle, shape `(2,)`, and radius.
        ray_ends: Where the sensors' rays end, shape `(2, rays)`.
        trail: Where the point has been, shape `(steps, 2)`.
    """
    canvas = Canvas(len(blocks) // 2, FLOOR_COLOUR)
    for end in ray_ends.T:
        canvas.line(point[0], end, 0.012, RAY_COLOUR)
        canvas.disc(end, 0.035, RAY_COLOUR)
    for before, after in zip(trail[:-1], trail[1:], strict=True):
        canvas.line(before, after, 0.03, TRAIL_COLOUR)
    # The next one comes last, for goals may share a cell.
    for place, goal in reversed(list(enumerate(goals))):
        colour = LATER_COLOUR if place else GOAL_COLOUR
        canvas.disc(goal, radius, colour)
        canvas.disc(goal, 0.6 * radius, FLOOR_COLOUR)
        canvas.disc(goal, 0.3 * radius, colour)
    shifted = canvas.centres + wall
    block = (2 * np.floor(shifted) + (shifted % 1.0 > 2 * wall)).astype(int)
    canvas.pixels[blocks[block[:, None], block]] = WALL_COLOUR
    canvas.disc(*point, POINT_COLOUR)
    return canvas.finish()
