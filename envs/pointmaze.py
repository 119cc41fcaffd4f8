"""PointMaze: a point mass that feels its way through mazes from goal to goal, and the path follower that solves them.

In the spirit of the point mazes of D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219), but the walls are felt by
range sensors, so that one policy serves mazes of all sizes, and all copies are stepped by one call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages.environments.batched_env import ALL, BatchedEnv, SingleEnv
from rlstages_envs.pointmaze_drawing import draw_maze
from rlstages_envs.pointmaze_layout import lay_out
from rlstages_envs.pointmaze_sensors import RangeSensors

WALL = 0.2
"""Half the thickness of a wall for the point's middle, in cells; half of that is the point's own size."""

TOP_SPEED = 0.24
"""The speed that a full push along one axis leads to, in cells per step. Less than a wall is thick, so that looking
where a step ends is enough to find the walls on its way."""

RADIUS = 0.3
"""The goal is reached within this distance, in cells."""

RAYS = 16
SIGHT = 2.5
"""The number of range sensors, and their range in cells."""

MEMORIES = np.array([10.0, 40.0])
"""Over how many steps, about, the averages of past positions reach back."""

HALFWAY = 2.0
"""The distance to the goal, in cells, that is observed as a half."""

PACE = 25
"""The default time limit allows this many steps per cell of the maze's side, for each goal."""

MIN_SIZE, MAX_SIZE = 2, 30
MAX_GOALS = 10
LEAST_DAMPING = 0.05

GAP = 1e-6
"""A point that hits a wall stops this far short of it, which keeps rounding from putting it inside."""

FREE = WALL + GAP
"""How close to the line between two cells the point gets where there is a wall."""

ARROWS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""The steps (x, y) from a cell to its neighbours."""


class BatchedPointMaze(BatchedEnv):
    """Many copies of a point mass in a maze of `size` x `size` cells, with goals to reach one after the other.

    There is a post wherever four cells meet, and walls join some of the posts in pairs. No wall touches another, so
    there is a way around each, but often not one that leads straight to the goal. The walls, the start and the goals
    are drawn from the episode's seed, each goal at least `size - 1` cells (sideways plus up or down) from the one
    before or the start.

    Each step the point loses the share `damping` of its velocity, and the push adds `damping * 0.24` cells per step
    for each unit: whatever the damping, a steady full push along an axis leads to 0.24 cells per step. The point
    moves along x and then along y; a wall stops the one and leaves the other, so the point slides along walls.

    The observation has shape `(26,)`, float32, x before y wherever there are two:

    - 0 to 15: how far it is to the nearest wall, as a share of the 2.5 cells beyond which nothing is felt, in 16
      directions spread evenly from x towards y;
    - 16 and 17: the velocity, as a share of 0.24 cells per step;
    - 18 and 19: the direction of the next goal, as a unit vector;
    - 20: the distance `d` to the next goal in cells, as `d / (d + 2)`;
    - 21: how many goals `g` are left, as `1 - 1 / g`;
    - 22 to 25: how far the point has come from the averages of its past positions over about 10 and 40 steps, each
      number `x` in cells as `x / (1 + |x|)`: a short memory, which tells wandering in one place from getting ahead.

    The action is the push along x and y, each clipped to -1 to 1. Reaching the last goal (within 0.3 cells) ends the
    episode with reward `1 - 0.9 * steps / max_steps`; all else, the goals before it too, is worth 0.
    `infos["is_success"]`, shape `(num_envs,)`, bool, tells which copies reached the last goal by this step.

    Args:
        num_envs: How many copies are stepped together.
        size: Cells per side, 2 to 30.
        goals: How many goals have to be reached, 1 to 10.
        walls: The share of walls that are there, of those that fit in without touching each other, 0 to 1.
        damping: The share of its velocity the point loses each step, 0.05 to 1; the less, the more inertia it has.
        max_steps: Steps until the episode is truncated; by default `25 * size * goals`.
        render_mode: `None` or `"rgb_array"`.

    Raises:
        ValueError: If an argument is not a number in its range, or there is no such render mode.
    """

    def __init__(
        self,
        num_envs: int,
        size: int = 3,
        goals: int = 1,
        walls: float = 1.0,
        damping: float = 0.25,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.size = _whole("size", size, MIN_SIZE, MAX_SIZE)
        self.goals = _whole("goals", goals, 1, MAX_GOALS)
        self.walls = _share("walls", walls, 0)
        self.damping = _share("damping", damping, LEAST_DAMPING)
        self.max_steps = PACE * self.size * self.goals if max_steps is None else _whole("max_steps", max_steps, 1)
        low = np.repeat([0.0, -1.0, 0.0, -1.0], [RAYS, 4, 2, 2 * len(MEMORIES)]).astype(np.float32)
        self.single_observation_space = gym.spaces.Box(low, np.ones_like(low), dtype=np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(_whole("num_envs", num_envs, 1), render_mode)
        self.side = 2 * self.size + 1
        self.sensors = RangeSensors(self.num_envs, self.size, RAYS, SIGHT, WALL)
        # Copies come last: whatever is done to all of them then runs along memory.
        self.blocks = np.zeros((self.num_envs, self.side, self.side), dtype=bool)
        self.positions = np.full((2, self.num_envs), 0.5)
        self.velocities = np.zeros((2, self.num_envs))
        self.goal_positions = np.full((self.goals, 2, self.num_envs), 0.5)
        self.reached = np.zeros(self.num_envs, dtype=np.int64)
        self.past = np.full((len(MEMORIES), 2, self.num_envs), 0.5)
        self.steps = np.zeros(self.num_envs, dtype=np.int64)
        self.trails = np.zeros((self.num_envs, self.max_steps + 1 if render_mode else 0, 2))
        self._copies = np.arange(self.num_envs)

    def start(self, copies: np.ndarray, seeds: np.ndarray) -> None:
        """Begin new episodes; see `BatchedEnv.start`."""
        mazes = lay_out(seeds, self.size, self.walls, self.goals, 0.5 - FREE)
        self.blocks[copies] = mazes.blocks
        self.sensors.enter(copies, mazes.blocks)
        self.positions[:, copies] = mazes.starts
        self.velocities[:, copies] = 0.0
        self.goal_positions[:, :, copies] = mazes.goals
        self.reached[copies] = 0
        self.past[:, :, copies] = mazes.starts
        self.steps[copies] = 0
        self._leave_trail()

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every copy once; see `BatchedEnv.advance`."""
        push = np.clip(actions.T, -1.0, 1.0).astype(np.float64)
        self.velocities += self.damping * (TOP_SPEED * push - self.velocities)
        for axis in range(2):
            self._move(axis)
        self.past += (self.positions - self.past) / MEMORIES[:, None, None]
        self.steps += 1
        self._leave_trail()
        x, y = self.next_goals() - self.positions
        self.reached += x * x + y * y <= RADIUS**2
        success = self.reached >= self.goals
        rewards = success * (1.0 - 0.9 * self.steps / self.max_steps)
        return rewards, success, ~success & (self.steps >= self.max_steps), {"is_success": success}

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from what `state` returned; see `BatchedEnv.restore`."""
        self.sensors.enter(self._copies, state["blocks"])
        return super().restore(state)

    def next_goals(self, copies: np.ndarray | slice = ALL) -> np.ndarray:
        """Return where some copies have to go next, shape `(2, k)`; after the last goal, that one."""
        goals = np.minimum(self.reached[copies], self.goals - 1)
        return self.goal_positions[goals, :, self._copies[copies]].T

    def observe(self, copies: np.ndarray | slice = ALL) -> np.ndarray:
        """Return what some points feel, shape `(k, 26)`, float32; see `BatchedEnv.observe`."""
        positions = self.positions[:, copies]
        offsets = self.next_goals(copies) - positions
        distances = np.sqrt(offsets[0] ** 2 + offsets[1] ** 2)
        lags = (positions - self.past[:, :, copies]).reshape(2 * len(MEMORIES), -1)
        observations = np.empty((len(distances), RAYS + 6 + len(lags)), dtype=np.float32)
        columns = observations.T
        columns[:RAYS] = self.sensors.measure(positions, copies) / np.float32(SIGHT)
        columns[RAYS : RAYS + 2] = self.velocities[:, copies] / TOP_SPEED
        columns[RAYS + 2 : RAYS + 4] = offsets / np.maximum(distances, GAP)
        columns[RAYS + 4] = distances / (distances + HALFWAY)
        columns[RAYS + 5] = 1.0 - 1.0 / np.maximum(self.goals - self.reached[copies], 1)
        columns[RAYS + 6 :] = lags / (1.0 + abs(lags))
        return observations

    def draw(self, copy: int) -> np.ndarray:
        """Return a picture of one copy, shape `(height, width, 3)`, uint8."""
        position = self.positions[:, copy]
        return draw_maze(
            blocks=self.blocks[copy],
            wall=WALL / 2,
            goals=self.goal_positions[min(self.reached[copy], self.goals - 1) :, :, copy],
            radius=RADIUS,
            point=(position, WALL / 2),
            ray_ends=position[:, None] + self.sensors.directions * self.sensors.measure(self.positions)[:, copy],
            trail=self.trails[copy, : self.steps[copy] + 1],
        )

    def _move(self, axis: int) -> None:
        """Move all points along one axis, up to the walls in their way."""
        speeds, positions = self.velocities[axis], self.positions[axis]
        positions += speeds
        hit = np.flatnonzero(self._inside_walls())
        # The wall lies around the nearest line between cells, and the point came from where its speed comes from.
        positions[hit] = np.floor(positions[hit] + WALL) - np.sign(speeds[hit]) * FREE
        speeds[hit] = 0.0

    def _inside_walls(self) -> np.ndarray:
        shifted = self.positions + WALL
        cells = np.floor(shifted)
        columns, rows = (2.0 * cells + (shifted - cells > 2.0 * WALL)).astype(np.int64)
        return self.blocks[self._copies, rows, columns]

    def _leave_trail(self) -> None:
        if self.render_mode:
            self.trails[self._copies, np.minimum(self.steps, self.max_steps)] = self.positions.T


def make_pointmaze(
    size: int = 3,
    goals: int = 1,
    walls: float = 1.0,
    damping: float = 0.25,
    max_steps: int | None = None,
    render_mode: str | None = None,
) -> gym.Env[Any, Any]:
    """Make a single PointMaze environment; the arguments are those of `BatchedPointMaze`."""
    return SingleEnv(BatchedPointMaze(1, size, goals, walls, damping, max_steps, render_mode))


def follow_path(env: gym.Env[Any, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Make the expert: it takes a shortest way through the cells, and keeps to the middle of the passages.

    Args:
        env: A single PointMaze environment, wrapped or not. The expert reads its state and never changes it.

    Returns:
        A function from an observation, which it ignores, to an action, shape `(2,)`, float32. It is right in any
        state, also after a reset.
    """
    sim: BatchedPointMaze = env.unwrapped.batched  # type: ignore[attr-defined]
    plan: dict[bytes, np.ndarray] = {}

    def act(observation: np.ndarray) -> np.ndarray:
        blocks, goal, position = sim.blocks[0], sim.next_goals()[:, 0], sim.positions[:, 0]
        maze = blocks.tobytes() + goal.tobytes()
        if maze not in plan:
            plan.clear()
            plan[maze] = _directions(blocks, goal)
        x, y = np.floor(position).astype(int)
        velocity = _course(plan[maze][y, x], position, goal)
        # The push after which the point moves just so.
        push = sim.velocities[:, 0] + (velocity - sim.velocities[:, 0]) / sim.damping
        return np.clip(push / TOP_SPEED, -1.0, 1.0).astype(np.float32)

    return act


def _course(arrow: np.ndarray, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return the velocity wanted at a place from which `arrow` leads to the next cell, or which is in the goal's."""
    if not arrow.any():
        return TOP_SPEED * (goal - position) / max(abs(goal - position).max(), GAP)
    stray = np.where(arrow == 0, np.floor(position) + 0.5 - position, 0.0)
    # Off the middle of the passage by more than this, the point would run into a post.
    ahead = max(0.0, 1.0 - abs(stray).max() / (0.5 - WALL))
    return TOP_SPEED * (ahead * arrow + np.clip(4.0 * stray, -1.0, 1.0))


def _directions(blocks: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Find which neighbour (x, y) to go to from each cell, shape `(size, size, 2)`, by breadth-first search.

    Of several shortest ways, one goes to the neighbour nearest to the goal.
    """
    size = len(blocks) // 2
    target = int(goal[0]), int(goal[1])
    distances = {target: 0}
    queue = deque(distances)
    directions = np.zeros((size, size, 2))

    def neighbours(x: int, y: int) -> list[tuple[int, int]]:
        return [(x + dx, y + dy) for dx, dy in ARROWS if not blocks[2 * y + 1 + dy, 2 * x + 1 + dx]]

    while queue:
        cell = queue.popleft()
        for other in neighbours(*cell):
            if other not in distances:
                distances[other] = distances[cell] + 1
                queue.append(other)
    for x, y in distances.keys() - {target}:
        best = min(neighbours(x, y), key=lambda c: (distances[c], (c[0] - target[0]) ** 2 + (c[1] - target[1]) ** 2))
        directions[y, x] = best[0] - x, best[1] - y
    return directions


def _whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return `value` if it is a whole number in range."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and least <= value <= (most or value):
        return int(value)
    allowed = f"at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"PointMaze: {name} is {value!r}; give a whole number {allowed}.")


def _share(name: str, value: Any, least: float) -> float:
    """Return `value` if it is a number from `least` to 1."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if number and least <= value <= 1:
        return float(value)
    raise ValueError(f"PointMaze: {name} is {value!r}; give a number from {least} to 1.")
