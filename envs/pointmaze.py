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

GAP = 1e-6
"""A point that hits a wall stops this far short of it, which keeps rounding from putting it inside."""


class Crossings:
    """All places where the range sensors' rays can enter a row or column of walls, as one flat list.

    Attributes:
        ray: Which ray, shape `(m,)`, ascending.
        axis: Whether it enters a column of walls (0) or a row (1), shape `(m,)`.
        nth: How many it has entered before along that axis, shape `(m, 1)`.
        sign: Which way it goes along that axis, shape `(m, 1)`.
        pace: How far it goes for each cell along that axis, shape `(m, 1)`.
        drift: How far it goes along the other axis for each unit of its length, shape `(m, 1)`.
    """

    def __init__(self, rays: int, sight: float) -> None:
        turns = 2 * np.pi * np.arange(rays) / rays
        self.directions = np.round(np.stack([np.cos(turns), np.sin(turns)]), 12)
        listed = [
            (ray, axis, nth)
            for ray in range(rays)
            for axis in range(2)
            for nth in range(int(np.ceil(sight * abs(self.directions[axis, ray]))))
        ]
        self.ray, self.axis, nth = np.array(listed).T
        self.nth = nth[:, None].astype(float)
        along = self.directions[self.axis, self.ray][:, None]
        self.sign = np.sign(along)
        self.pace = 1 / abs(along)
        self.drift = self.directions[1 - self.axis, self.ray][:, None]
        self.other = 1 - self.axis
        self.way = self.axis + 2 * (self.sign[:, 0] < 0)
        self.first = np.flatnonzero(np.diff(self.ray, prepend=-1))


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
        self._origins = np.arange(self.num_envs) * self.side**2
        self._strides = np.array([1, self.side])

    def start(self, copies: np.ndarray, seeds: np.ndarray) -> None:
        """Begin new episodes; see `BatchedEnv.start`."""
        mazes = lay_out(seeds, self.size, self.loops, 0.5 - WALL - GAP)
        self.blocks[copies] = mazes.blocks
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
        rays = CROSSINGS
        mirrored = np.concatenate([self.positions, -self.positions]) + WALL
        lines = np.ceil(mirrored)
        lengths = ((lines - mirrored)[rays.way] + rays.nth) * rays.pace
        across = (self.positions[rays.other] + lengths * rays.drift) + WALL
        cells = np.floor(across)
        blocks = 2.0 * cells + (across - cells > 2 * WALL)
        strides = self._strides
        flat = blocks * strides[rays.other][:, None]
        flat += (lines[rays.way] + rays.nth) * (2 * rays.sign * strides[rays.axis][:, None])
        flat += self._origins
        # A crossing outside the maze may be looked up anywhere, for the ray has met the outer wall before it.
        solid = self.blocks.reshape(-1).take(flat.astype(np.int64), mode="clip")
        lengths[~solid] = SIGHT
        return np.minimum(np.minimum.reduceat(lengths, rays.first, axis=0), SIGHT)

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
            rank = (distances[y + dy, x + dx], -(dx * offset[0] + dy * offset[1]))
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
