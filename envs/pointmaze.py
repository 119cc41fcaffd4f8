"""PointMaze: a point mass that feels its way through mazes to a goal, and the path follower that solves them.

In the spirit of the point mazes of D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219), but the walls are felt by
range sensors, so that one policy serves mazes of all sizes, and all copies are stepped by one call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages_envs.batched import BatchedEnv, SingleEnv
from rlstages_envs.pointmaze_drawing import draw_maze
from rlstages_envs.pointmaze_layout import lay_out

WALL = 0.2
"""Half the thickness of a wall as the point's middle feels it, in cells: the point's own radius is part of it."""

FORCE = 0.06
"""What a full push adds to the speed, in cells per step."""

DAMPING = 0.25
"""The share of its speed that the point loses each step."""

TOP_SPEED = FORCE / DAMPING
"""The speed that a full push along one axis leads to, in cells per step; less than a wall is thick."""

RADIUS = 0.3
"""The goal is reached within this distance, in cells."""

RAYS = 16
SIGHT = 3.0
"""The range of the sensors, in cells."""

PACE = 20
"""The default time limit allows this many steps per cell of the maze's side."""

MIN_SIZE, MAX_SIZE = 2, 30

FAR = 1000
GAP = 1e-6
"""A point that hits a wall stops this far short of it, which keeps rounding from putting it inside."""


class Crossings:
    """The places where the sensors' rays may enter a column or row of walls: the first few of every ray, as slots.

    All have shape `(slots, rays, 1)`; a ray that needs fewer slots than another has one far away in the rest.

    Attributes:
        axis: Whether the ray enters a column of walls (0) or a row (1).
        way: The same for rays towards greater coordinates; 2 and 3 for the others.
        nth: How many it has entered before along that axis.
        turn: 1 for rays towards greater coordinates, else -1.
        pace: How far it goes for each cell along that axis.
        drift: How far it goes along the other axis for each cell of its length.
    """

    def __init__(self, rays: int, sight: float) -> None:
        angles = 2 * np.pi * np.arange(rays) / rays
        self.directions = np.round(np.stack([np.cos(angles), np.sin(angles)]), 12)
        counts = np.ceil(sight * abs(self.directions)).astype(int)
        slots = [
            [(axis, nth) for axis in range(2) for nth in range(counts[axis, ray])] for ray in range(rays)
        ]
        most = max(map(len, slots))
        filled = np.array([(ray + most * [(int(counts[0, i] == 0), FAR)])[:most] for i, ray in enumerate(slots)])
        self.axis, nth = filled.transpose(2, 1, 0)
        self.nth = nth[..., None].astype(np.float32)
        along = np.take_along_axis(self.directions, self.axis, axis=0)
        self.way = self.axis + 2 * (along < 0)
        self.turn = np.sign(along)[..., None].astype(np.float32)
        self.pace = (1.0 / abs(along))[..., None].astype(np.float32)
        self.drift = np.take_along_axis(self.directions, 1 - self.axis, axis=0)[..., None].astype(np.float32)


class BatchedPointMaze(BatchedEnv):
    """Many copies of a point mass in a maze.

    TODO doc.
    """

    def __init__(
        self,
        num_envs: int,
        size: int = 3,
        loops: float = 0.5,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.size = _whole("size", size, MIN_SIZE, MAX_SIZE)
        self.loops = _share("loops", loops)
        self.max_steps = PACE * self.size if max_steps is None else _whole("max_steps", max_steps, 1)
        low = np.concatenate([np.zeros(RAYS), -np.ones(4), np.zeros(1)]).astype(np.float32)
        self.single_observation_space = gym.spaces.Box(low, np.ones_like(low), dtype=np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(_whole("num_envs", num_envs, 1), render_mode)
        self.side = 2 * self.size + 1
        self.blocks = np.zeros((self.num_envs, self.side, self.side), dtype=bool)
        self.positions = np.full((2, self.num_envs), 0.5)
        self.velocities = np.zeros((2, self.num_envs))
        self.goals = np.full((2, self.num_envs), 0.5)
        self.steps = np.zeros(self.num_envs, dtype=np.int64)
        self.trails: list[list[tuple[float, float]]] = [[] for _ in range(self.num_envs)]
        # What a ray's length is at least, as far as one block is concerned: out of sight if the block is free.
        self._beyond = np.zeros(self.blocks.size, dtype=np.float32)
        self._origins = np.arange(self.num_envs) * self.side**2
        strides = np.array([1.0, self.side], dtype=np.float32)
        self._along_strides = 2.0 * np.concatenate([strides, -strides])[:, None]
        self._nth_strides = self._along_strides[CROSSINGS.way] * CROSSINGS.nth
        self._across_strides = strides[1 - CROSSINGS.axis][..., None]

    def start(self, copies: np.ndarray, seeds: np.ndarray) -> None:
        """Begin new episodes; see `BatchedEnv.start`."""
        mazes = lay_out(seeds, self.size, self.loops, 0.5 - WALL - GAP)
        self.blocks[copies] = mazes.blocks
        self._beyond.reshape(self.blocks.shape)[copies] = np.where(mazes.blocks, 0.0, SIGHT)
        self.positions[:, copies] = mazes.starts
        self.goals[:, copies] = mazes.goals
        self.velocities[:, copies] = 0.0
        self.steps[copies] = 0

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every copy once; see `BatchedEnv.advance`."""
        push = np.clip(actions.T, -1.0, 1.0).astype(np.float64)
        self.velocities = (1.0 - DAMPING) * self.velocities + FORCE * push
        # One axis after the other: the point slides along a wall, and no corner can be cut.
        for axis in range(2):
            self._move(axis)
        self.steps += 1
        offsets = self.goals - self.positions
        success = (offsets**2).sum(axis=0) <= RADIUS**2
        rewards = success * (1.0 - 0.9 * self.steps / self.max_steps)
        return rewards, success, ~success & (self.steps >= self.max_steps), {"is_success": success}

    def _move(self, axis: int) -> None:
        speeds = self.velocities[axis]
        self.positions[axis] += speeds
        hit = np.flatnonzero(self._solid())
        lines = np.floor(self.positions[axis, hit] + WALL)
        self.positions[axis, hit] = lines - np.sign(speeds[hit]) * (WALL + GAP)
        speeds[hit] = 0.0

    def _solid(self) -> np.ndarray:
        column, row = block_of(self.positions)
        return self.blocks.reshape(-1)[(row * self.side + column).astype(np.int64) + self._origins]

    def observe(self) -> np.ndarray:
        """Return what the points feel, shape `(num_envs, 21)`, float32."""
        observations = np.empty((self.num_envs, RAYS + 5), dtype=np.float32)
        observations[:, :RAYS] = self.ranges().T / SIGHT
        observations[:, RAYS : RAYS + 2] = self.velocities.T / TOP_SPEED
        offsets = self.goals - self.positions
        distances = np.sqrt((offsets**2).sum(axis=0))
        observations[:, RAYS + 2 : RAYS + 4] = (offsets / np.maximum(distances, GAP)).T
        observations[:, RAYS + 4] = distances / (distances + 2.0)
        return observations

    def ranges(self) -> np.ndarray:
        """Return how far each ray gets before it meets a wall, at most `SIGHT`, shape `(16, num_envs)`, in cells."""
        # Whole cells and the rest apart: single precision is twice as fast, and exact enough for the rest.
        cells = np.floor(self.positions)
        inside = self.positions - cells
        mirrored = np.concatenate([inside, -inside]) + WALL
        lines = np.ceil(mirrored)
        gaps = (lines - mirrored).astype(np.float32)
        along = (lines * self._along_strides).astype(np.float32)
        lengths = gaps[CROSSINGS.way] + CROSSINGS.nth
        lengths *= CROSSINGS.pace
        across = lengths * CROSSINGS.drift
        across += (inside[::-1] + WALL).astype(np.float32)[CROSSINGS.axis]
        spots = np.floor(across)
        across -= spots
        spots *= 2.0
        spots += across > np.float32(2 * WALL)
        spots *= self._across_strides
        spots += along[CROSSINGS.way]
        spots += self._nth_strides
        found = spots.astype(np.int64)
        found += self._origins + 2 * (cells[1] * self.side + cells[0]).astype(np.int64)
        # A crossing outside the maze may be looked up anywhere, for its ray has met the outer wall before.
        np.maximum(lengths, self._beyond.take(found, mode="clip"), out=lengths)
        return np.minimum(lengths.min(axis=0), SIGHT)

    def draw(self, copy: int) -> np.ndarray:
        """Return a picture of one copy, shape `(height, width, 3)`, uint8."""
        ends = self.positions[:, copy, None] + CROSSINGS.directions * self.ranges()[:, copy]
        return draw_maze(self.blocks[copy], WALL, self.positions[:, copy], self.goals[:, copy], RADIUS, ends)


def block_of(coordinates: np.ndarray) -> np.ndarray:
    """Return the rows or columns of blocks that coordinates lie in, as whole floats: even ones are walls'."""
    shifted = coordinates + WALL
    cells = np.floor(shifted)
    return 2.0 * cells + (shifted - cells > 2 * WALL)


def make_pointmaze(
    size: int = 3, loops: float = 0.5, max_steps: int | None = None, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """Make a single PointMaze environment; the arguments are those of `BatchedPointMaze`."""
    return SingleEnv(BatchedPointMaze(1, size, loops, max_steps, render_mode))


def follow_path(env: gym.Env[Any, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Make the expert: it takes a shortest way through the cells, keeping to the middle of passages.

    Args:
        env: A single PointMaze environment, wrapped or not. The expert reads its state and never changes it.

    Returns:
        A function from an observation, which it ignores, to an action. It is right in any state, also after a reset.
    """
    sim: BatchedPointMaze = env.unwrapped.batched  # type: ignore[attr-defined]
    plan: dict[bytes, np.ndarray] = {}

    def act(observation: np.ndarray) -> np.ndarray:
        position, velocity, goal = sim.positions[:, 0], sim.velocities[:, 0], sim.goals[:, 0]
        key = sim.blocks[0].tobytes() + goal.tobytes()
        if key not in plan:
            plan.clear()
            plan[key] = _distances(sim.blocks[0], goal)
        wanted = _course(plan[key], sim.blocks[0], position, goal)
        return np.clip((wanted - (1.0 - DAMPING) * velocity) / FORCE, -1.0, 1.0).astype(np.float32)

    return act


def _course(distances: np.ndarray, blocks: np.ndarray, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    x, y = (int(c) for c in np.floor(position))
    offset = goal - position
    if distances[y, x] == 0:
        return TOP_SPEED * offset / max(abs(offset))
    best, choice = (np.inf, 0.0), (0, 0)
    for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        if not blocks[2 * y + 1 + dy, 2 * x + 1 + dx]:
            rank = (distances[y + dy, x + dx], -(dx * (goal[0] - x) + dy * (goal[1] - y)))
            if rank < best:
                best, choice = rank, (dx, dy)
    step = np.array(choice)
    stray = np.where(step == 0, np.array([x, y]) + 0.5 - position, 0.0)
    ahead = max(0.0, 1.0 - abs(stray).max() / 0.35)
    return TOP_SPEED * (step * ahead + np.clip(stray * 4, -1, 1))


def _distances(blocks: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Compute how many cells each cell is away from the goal's, by breadth-first search."""
    size = len(blocks) // 2
    distances = np.full((size, size), np.inf)
    start = int(goal[0]), int(goal[1])
    distances[start[1], start[0]] = 0
    queue = deque([start])
    while queue:
        x, y = queue.popleft()
        for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            if not blocks[2 * y + 1 + dy, 2 * x + 1 + dx] and np.isinf(distances[y + dy, x + dx]):
                distances[y + dy, x + dx] = distances[y, x] + 1
                queue.append((x + dx, y + dy))
    return distances


def _whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return `value` if it is a whole number in range."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and least <= value <= (most or value):
        return int(value)
    allowed = f"at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"PointMaze: {name} is {value!r}; give a whole number {allowed}.")


def _share(name: str, value: Any) -> float:
    """Return `value` if it is a number from 0 to 1."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"PointMaze: {name} is {value!r}; give a number from 0 to 1.")


CROSSINGS = Crossings(RAYS, SIGHT)
