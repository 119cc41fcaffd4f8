"""Range sensors that feel the walls of a maze, cast for many copies at once."""

from __future__ import annotations

import numpy as np


class RangeSensors:
    """Rays in fixed directions, spread evenly from the x axis on, in `num_envs` mazes of blocks.

    Wherever a ray enters a wall, it enters a column of walls (even columns of blocks) or a row of them. Between them
    lie whole cells, so a ray that reaches `sight` enters few of either, and the first that is solid ends it. These
    places are computed for all rays and copies at once, with the few of each ray as slots; a ray that needs fewer
    than another has one out of sight in the rest.

    Args:
        num_envs: How many copies there are.
        size: Cells per side of a maze.
        rays: How many rays a copy has.
        sight: Their longest length, in cells.
        wall: Half the thickness of a wall, in cells.
    """

    def __init__(self, num_envs: int, size: int, rays: int, sight: float, wall: float) -> None:
        self.sight, self.wall, self.side = sight, wall, 2 * size + 1
        angles = 2.0 * np.pi * np.arange(rays) / rays
        self.directions = np.round(np.stack([np.cos(angles), np.sin(angles)]), 12)
        # These have shape (slots, rays): the axis along which walls are entered, and how many were before.
        self._axis, nth = self._slots()
        along = np.take_along_axis(self.directions, self._axis, axis=0)
        # Rays towards smaller coordinates are mirrored; `way` tells all four ways apart.
        self._way = self._axis + 2 * (along < 0.0)
        self._nth = nth[..., None].astype(np.float32)
        self._pace = (1.0 / abs(along))[..., None].astype(np.float32)
        self._drift = np.take_along_axis(self.directions, 1 - self._axis, axis=0)[..., None].astype(np.float32)
        strides = np.array([1.0, self.side], dtype=np.float32)
        self._line_strides = 2.0 * np.concatenate([strides, -strides])[:, None]
        self._nth_strides = self._line_strides[self._way] * self._nth
        self._across_strides = strides[1 - self._axis][..., None]
        self._origins = np.arange(num_envs) * self.side**2
        # How long a ray is at least as far as one block is concerned, which takes one maximum to apply.
        self._least = np.full((num_envs, self.side, self.side), sight, dtype=np.float32)

    def enter(self, copies: np.ndarray, blocks: np.ndarray) -> None:
        """Put some copies in new mazes.

        Args:
            copies: Indices of the copies, shape `(k,)`.
            blocks: Which blocks are solid, shape `(k, 2 * size + 1, 2 * size + 1)`, bool.
        """
        self._least[copies] = np.where(blocks, 0.0, self.sight)

    def measure(self, positions: np.ndarray, copies: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return how far each ray gets before it meets a wall, in cells.

        Args:
            positions: Places outside walls, shape `(2, k)`: x and y.
            copies: In whose mazes they are, as an index into arrays of all copies.

        Returns:
            Lengths of at most `sight`, shape `(rays, k)`, float32.
        """
        # Whole cells and the rest apart: single precision is fast, and exact enough for the rest.
        cells = np.floor(positions)
        inside = positions - cells
        mirrored = np.concatenate([inside, -inside]) + self.wall
        lines = np.ceil(mirrored)
        lengths = (lines - mirrored).astype(np.float32)[self._way]
        lengths += self._nth
        lengths *= self._pace
        across = lengths * self._drift
        across += (inside[::-1] + self.wall).astype(np.float32)[self._axis]
        blocks = np.floor(across)
        across -= blocks
        blocks *= 2.0
        blocks += across > np.float32(2.0 * self.wall)
        blocks *= self._across_strides
        blocks += (lines * self._line_strides).astype(np.float32)[self._way]
        blocks += self._nth_strides
        found = blocks.astype(np.int64)
        found += self._origins[copies] + 2 * (cells[1] * self.side + cells[0]).astype(np.int64)
        # A place outside the maze may be looked up anywhere, for its ray has met the outer wall before.
        np.maximum(lengths, self._least.reshape(-1).take(found, mode="clip"), out=lengths)
        return np.minimum(lengths.min(axis=0), np.float32(self.sight))

    def _slots(self) -> tuple[np.ndarray, np.ndarray]:
        """List along which axis each ray enters walls and how many it has entered before, `(slots, rays)` each."""
        counts = np.ceil(self.sight * abs(self.directions)).astype(int).T
        places = [[(axis, nth) for axis in range(2) for nth in range(count[axis])] for count in counts]
        most = max(map(len, places))
        spare = [(int(count[0] == 0), int(self.sight) + 2) for count in counts]
        filled = [(place + most * [rest])[:most] for place, rest in zip(places, spare, strict=True)]
        axis, nth = np.array(filled).T
        return axis, nth
