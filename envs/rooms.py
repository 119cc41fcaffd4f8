"""Rooms: a sparse-reward grid world of rooms joined by doors, and the planner that solves it.

In the spirit of MiniGrid's MultiRoom and DoorKey (Chevalier-Boisvert et al. 2023, https://arxiv.org/abs/2306.13831):
the same egocentric view, actions, doors, keys and reward, but all copies are stepped by one call.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages.environments.batched_env import ALL, BatchedEnv, SingleEnv
from rlstages_envs.rooms_drawing import draw_rooms
from rlstages_envs.rooms_layout import (
    CLOSED_DOOR,
    FLOOR,
    GOAL,
    HEADINGS,
    KEY,
    LOCKED_DOOR,
    MAX_ROOMS,
    MIN_ROOMS,
    OPEN_DOOR,
    SHORTEST_SIDE,
    UNSEEN,
    WALL,
    grid_side,
    lay_out,
)

TURN_LEFT, TURN_RIGHT, FORWARD, PICK_UP, TOGGLE = range(5)
"""The actions, in MiniGrid's order."""

VIEW = 7
"""The side of the view, in cells: from the agent's row on ahead, with the agent in the middle column."""

ROW = 8
"""Rows of the view are padded to this many cells while it is computed, so that one byte has a bit for each."""

THINGS = 8
OBSERVATION = VIEW * VIEW * THINGS + 1

PACE = 6
"""The default time limit allows this many steps per cell of a room's side, for each room and each key."""

MARGIN = VIEW - 2
"""With this much wall around the grid, every view lies inside it."""


def _rules() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tabulate what an action does for each thing ahead of the agent and each hand, empty (0) or holding a key (1).

    Returns:
        Whether the agent moves ahead, what is left there, and whether it then holds a key; each of shape `(5, 8, 2)`,
        indexed by action, thing and hand.
    """
    shape = (5, THINGS, 2)
    moves = np.zeros(shape, dtype=bool)
    leaves = np.broadcast_to(np.arange(THINGS, dtype=np.uint8)[:, None], shape).copy()
    holds = np.broadcast_to(np.arange(2), shape).copy()
    moves[FORWARD, [FLOOR, OPEN_DOOR, GOAL]] = True
    leaves[PICK_UP, KEY, 0], holds[PICK_UP, KEY, 0] = FLOOR, 1
    leaves[TOGGLE, CLOSED_DOOR], leaves[TOGGLE, OPEN_DOOR] = OPEN_DOOR, CLOSED_DOOR
    leaves[TOGGLE, LOCKED_DOOR, 1], holds[TOGGLE, LOCKED_DOOR, 1] = OPEN_DOOR, 0
    return moves, leaves, holds


def _sight() -> np.ndarray:
    """Tabulate MiniGrid's rule of visibility for one row of the view.

    Light reaches some of the row's cells from the row before; it spreads sideways through clear cells, and from every
    clear cell that is lit to the three nearest of the next row.
    Source: `Grid.process_vis`, https://github.com/Farama-Foundation/Minigrid/blob/master/minigrid/core/grid.py

    Returns:
        Shape `(65536,)`, uint16. The high byte of an index tells which cells light reaches, and its low byte which are
        clear. The high byte of an entry tells which cells of the next row light reaches, and its low byte which of
        this row are lit.
    """
    lit, clear = np.divmod(np.arange(1 << 2 * ROW), 1 << ROW)
    for _ in range(VIEW):
        lit = _spread(lit & clear) | lit
    return (_spread(lit & clear) << ROW | lit).astype(np.uint16)


def _spread(row: np.ndarray) -> np.ndarray:
    """Add the neighbours of all cells of a row; the first cell is the highest bit, and the padding the lowest."""
    return np.asarray((row | row << 1 | row >> 1) & 0b11111110)


MOVES, LEAVES, HOLDS = _rules()
TURNS = np.array([-1, 1, 0, 0, 0])
SIGHT = _sight()
REACHED = np.array(0xFF00, np.uint16)
OWN_CELL = 1 << 2 * ROW - 1 - VIEW // 2
CLEAR = np.uint8(sum(1 << thing for thing in range(THINGS) if thing not in (WALL, CLOSED_DOOR, LOCKED_DOOR)))
"""The things that can be seen through, a bit for each: shifting it is several times faster than looking them up."""
# Looking up the eight bytes of a one-hot as one number is several times faster than as a row.
ONE_HOT = np.eye(THINGS, dtype=np.uint8).view(np.uint64)[:, 0]
HANDLE = {KEY: PICK_UP, CLOSED_DOOR: TOGGLE, LOCKED_DOOR: TOGGLE}
"""How to get past a thing that bars the way."""


class BatchedRooms(BatchedEnv):
    """Many copies of a chain of rooms, the agent in the first and the goal in the last.

    The rooms lie along a random walk that never crosses itself, on a lattice whose rows and columns have random
    widths. A door anywhere on their common wall joins each room to the next. A locked door opens to an agent that
    carries a key, and uses the key up; the key lies somewhere between the previous locked door and this one. All of
    this, the start, the heading and the goal are drawn from the episode's seed.

    The observation is what the agent sees of the 7 x 7 cells from its own row on ahead; walls and shut doors hide
    what is behind them, by MiniGrid's rule. For each cell, the nearest row first and each from left to right, it has a
    one-hot of hidden, floor, wall, closed door, open door, locked door, key and goal; then 1 if the agent carries a
    key. Shape `(393,)`, float32.

    The actions are 0 turn left, 1 turn right, 2 forward, 3 pick up the key ahead, 4 toggle the door ahead (open,
    shut or unlock it). Reaching the goal ends the episode with reward `1 - 0.9 * steps / max_steps`; all else is
    worth 0. `infos["is_success"]`, shape `(num_envs,)`, bool, tells which copies reached the goal by this step.

    Args:
        num_envs: How many copies are stepped together.
        rooms: Length of the chain, 2 to 10.
        size: Longest inner side of a room, in cells, at least 3; the sides are `size - 2` (at least 3) to `size`.
        keys: How many of the `rooms - 1` doors are locked.
        max_steps: Steps until the episode is truncated; by default `6 * size * (rooms + keys)`.
        render_mode: `None` or `"rgb_array"`.

    Raises:
        ValueError: If an argument is not a whole number in its range, or there is no such render mode.
    """

    def __init__(
        self,
        num_envs: int,
        rooms: int = 2,
        size: int = 5,
        keys: int = 0,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.rooms = _whole("rooms", rooms, MIN_ROOMS, MAX_ROOMS)
        self.size = _whole("size", size, SHORTEST_SIDE)
        self.keys = _whole("keys", keys, 0, self.rooms - 1, ", fewer than there are rooms")
        default = PACE * self.size * (self.rooms + self.keys)
        self.max_steps = default if max_steps is None else _whole("max_steps", max_steps, 1)
        self.single_observation_space = gym.spaces.Box(0.0, 1.0, (OBSERVATION,), np.float32)
        self.single_action_space = gym.spaces.Discrete(5)
        super().__init__(_whole("num_envs", num_envs, 1), render_mode)
        self.side = grid_side(self.rooms, self.size, MARGIN)
        self.strides: np.ndarray = HEADINGS @ [self.side, 1]
        self.cells = np.full((self.num_envs, self.side, self.side), WALL, dtype=np.uint8)
        self.positions = np.full(self.num_envs, (MARGIN + 1) * (self.side + 1))
        self.headings = np.zeros(self.num_envs, dtype=np.int64)
        self.carrying = np.zeros(self.num_envs, dtype=np.int64)
        self.steps = np.zeros(self.num_envs, dtype=np.int64)
        self.errands = np.zeros((self.num_envs, 2 * self.keys + 1), dtype=np.int64)
        self.seeds = np.zeros(self.num_envs, dtype=np.uint64)
        self._origins = np.arange(self.num_envs) * self.side**2
        ahead, aside = np.divmod(np.arange(VIEW * ROW), ROW)
        right = np.roll(self.strides, -1)
        # The padding repeats the agent's own column, which lies inside the grid.
        aside = np.where(aside < VIEW, aside - VIEW // 2, 0)
        self._view_offsets = ahead * self.strides[:, None] + aside * right[:, None]

    def start(self, copies: np.ndarray, seeds: np.ndarray) -> None:
        """Begin new episodes; see `BatchedEnv.start`."""
        layouts = lay_out(seeds, self.rooms, self.size, self.keys, MARGIN)
        self.cells[copies] = layouts.cells
        self.positions[copies] = layouts.positions
        self.headings[copies] = layouts.headings
        self.carrying[copies] = 0
        self.steps[copies] = 0
        self.errands[copies] = layouts.errands
        self.seeds[copies] = seeds

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every copy once; see `BatchedEnv.advance`."""
        cells = self.cells.reshape(-1)
        ahead = self.positions + self.strides.take(self.headings)
        spots = self._origins + ahead
        found = cells.take(spots)
        case = (actions * THINGS + found) * 2 + self.carrying
        moved = MOVES.take(case)
        cells[spots] = LEAVES.take(case)
        self.carrying = HOLDS.take(case)
        self.positions = np.where(moved, ahead, self.positions)
        self.headings = (self.headings + TURNS.take(actions)) & 3
        self.steps += 1
        success = moved & (found == GOAL)
        rewards = success * (1.0 - 0.9 / self.max_steps * self.steps)
        return rewards, success, ~success & (self.steps >= self.max_steps), {"is_success": success}

    def observe(self, copies: np.ndarray | slice = ALL) -> np.ndarray:
        """Return what some agents see, shape `(k, 393)`, float32; see `BatchedEnv.observe`."""
        view = self.view(copies)
        observations = np.empty((len(view), OBSERVATION), dtype=np.float32)
        observations[:, :-1] = ONE_HOT.take(view).reshape(-1, VIEW * VIEW).view(np.uint8)
        observations[:, -1] = self.carrying[copies]
        return observations

    def view(self, copies: np.ndarray | slice = ALL) -> np.ndarray:
        """Return what each cell of the views holds, shape `(k, 7, 7)`, uint8, `UNSEEN` where it is hidden."""
        spots = self._view_offsets.take(self.headings[copies], axis=0)
        spots += (self._origins[copies] + self.positions[copies])[:, None]
        found = self.cells.reshape(-1).take(spots)
        # Rows first: each row of all views is then one run of memory.
        clear = np.packbits(CLEAR >> found & 1).reshape(-1, VIEW).T.astype(np.uint16)
        lit = np.empty(clear.shape, dtype=np.uint8)
        light = np.full(len(spots), OWN_CELL, dtype=np.uint16)
        for row in range(VIEW):
            light = SIGHT.take(light & REACHED | clear[row])
            lit[row] = light
        found *= np.unpackbits(lit.T.reshape(-1)).reshape(found.shape)
        return found.reshape(-1, VIEW, ROW)[:, :, :VIEW]

    def draw(self, copy: int) -> np.ndarray:
        """Return a picture of one copy, shape `(height, width, 3)`, uint8, with what the agent sees lit up."""
        lit = np.zeros((self.side, self.side), dtype=bool)
        in_view = self.positions[copy] + self._view_offsets[self.headings[copy]].reshape(VIEW, ROW)[:, :VIEW]
        lit.reshape(-1)[in_view[self.view()[copy] != UNSEEN]] = True
        row, column = divmod(int(self.positions[copy]), self.side)
        inner = slice(MARGIN, self.side - MARGIN)
        return draw_rooms(
            self.cells[copy, inner, inner],
            lit[inner, inner],
            (row - MARGIN, column - MARGIN),
            int(self.headings[copy]),
            bool(self.carrying[copy]),
        )


def make_rooms(
    rooms: int = 2, size: int = 5, keys: int = 0, max_steps: int | None = None, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """Make a single Rooms environment; the arguments are those of `BatchedRooms`."""
    return SingleEnv(BatchedRooms(1, rooms, size, keys, max_steps, render_mode))


def plan_rooms(env: gym.Env[Any, Any]) -> Callable[[np.ndarray], int]:
    """Make the expert: a planner that takes a shortest way to the next key or locked door, and at last to the goal.

    Args:
        env: A single Rooms environment, wrapped or not. The planner reads its state and never changes it.

    Returns:
        A function from an observation, which it ignores, to an action. It is right in any state, also after a reset.
    """
    sim: BatchedRooms = env.unwrapped.batched  # type: ignore[attr-defined]
    fields: dict[tuple[int, int], dict[tuple[int, int], int]] = {}

    def act(observation: np.ndarray) -> int:
        cells = sim.cells[0].reshape(-1)
        errand = next(int(cell) for cell in sim.errands[0] if cells[cell] in (KEY, LOCKED_DOOR, GOAL))
        # Walls stay where they are during an episode, and the seed tells episodes apart.
        plan = int(sim.seeds[0]), errand
        if plan not in fields:
            fields.clear()
            fields[plan] = _distances(cells != WALL, sim.strides.tolist(), errand)
        position, heading = int(sim.positions[0]), int(sim.headings[0])
        ahead = position + int(sim.strides[heading])
        after = {
            FORWARD: (ahead, heading),
            TURN_LEFT: (position, (heading - 1) % 4),
            TURN_RIGHT: (position, (heading + 1) % 4),
        }
        best = min(after, key=lambda action: fields[plan].get(after[action], math.inf))
        return HANDLE.get(int(cells[ahead]), FORWARD) if best == FORWARD else best

    return act


def _distances(free: np.ndarray, strides: list[int], target: int) -> dict[tuple[int, int], int]:
    """Compute how many moves each pose (cell, heading) is away from `target`, by breadth-first search backwards."""
    distances = {(target, heading): 0 for heading in range(4)}
    queue = deque(distances)
    while queue:
        cell, heading = queue.popleft()
        for pose in ((cell - strides[heading], heading), (cell, (heading + 1) % 4), (cell, (heading - 1) % 4)):
            if pose not in distances and free[pose[0]]:
                distances[pose] = distances[cell, heading] + 1
                queue.append(pose)
    return distances


def _whole(name: str, value: Any, least: int, most: float = math.inf, why: str = "") -> int:
    """Return `value` if it is a whole number from `least` to `most`."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    allowed = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
    raise ValueError(f"Rooms: {name} is {value!r}; give a whole number {allowed}{why}.")
