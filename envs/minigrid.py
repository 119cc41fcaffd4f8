"""MiniGrid's MultiRoom and DoorKey as flat one-hot vectors, and an expert that plans through them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

import gymnasium as gym
import numpy as np

State = tuple[int, int, int]

LEFT, RIGHT, FORWARD, PICKUP, TOGGLE = 0, 1, 2, 3, 5
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
VIEW = 7
EMPTY = bytes((1, 0, 0))
OBJECTS, COLOURS, STATES = 11, 6, 3
SIZE = VIEW * VIEW * (OBJECTS + COLOURS + STATES)
# Where each number of an image finds the first of its bits.
FIRST_BIT = np.add.outer(np.arange(0, SIZE, OBJECTS + COLOURS + STATES), [0, OBJECTS, OBJECTS + COLOURS]).ravel()
# The cells of a view, as (x, y) from the agent: one list for each direction, row (its own is row 0) and column.
CELLS = [
    [
        [(dx * far - dy * side, dy * far + dx * side) for side in range(-(VIEW // 2), VIEW // 2 + 1)]
        for far in range(VIEW)
    ]
    for dx, dy in STEPS
]


def multiroom(
    min_rooms: int,
    max_rooms: int,
    max_room_size: int = 10,
    max_steps: int | None = None,
    render_mode: str | None = None,
) -> gym.Env[np.ndarray, int]:
    """Make a chain of rooms with closed doors between them and the goal in the last.

    `(2, 2, 4)` is MiniGrid-MultiRoom-N2-S4, `(4, 4, 5)` N4-S5 and `(6, 6)` N6. Observations are as `OneHotView` says,
    actions MiniGrid's own seven; reaching the goal pays `1 - 0.9 * steps / max_steps`, everything else 0.

    Source: https://minigrid.farama.org/environments/minigrid/MultiRoomEnv/

    Args:
        min_rooms: Fewest rooms in an episode.
        max_rooms: Most rooms in an episode.
        max_room_size: Longest side of a room, walls included, in cells; at least 4.
        max_steps: Steps until the episode is truncated; MiniGrid's own limit, `20 * max_rooms`, if not given.
        render_mode: `None`, `"human"` or `"rgb_array"`.

    Raises:
        ImportError: If MiniGrid is not installed.
    """
    task = _tasks().MultiRoomEnv
    return OneHotView(task(min_rooms, max_rooms, max_room_size, max_steps=max_steps, render_mode=render_mode))


def doorkey(size: int = 8, max_steps: int | None = None, render_mode: str | None = None) -> gym.Env[np.ndarray, int]:
    """Make two rooms with a locked door between them, the key in the first and the goal in the second.

    `size` 5, 6, 8 and 16 are the registered MiniGrid-DoorKey tasks. Observations, actions and rewards are as in
    `multiroom`.

    Source: https://minigrid.farama.org/environments/minigrid/DoorKeyEnv/

    Args:
        size: Side of the whole grid, walls included, in cells; at least 5.
        max_steps: Steps until the episode is truncated; MiniGrid's own limit, `10 * size**2`, if not given.
        render_mode: `None`, `"human"` or `"rgb_array"`.

    Raises:
        ImportError: If MiniGrid is not installed.
    """
    return OneHotView(_tasks().DoorKeyEnv(size, max_steps=max_steps, render_mode=render_mode))


def reached_goal(info: Mapping[str, Any], episode_return: float, length: int) -> bool:
    """Tell whether an episode succeeded; MiniGrid pays only at the goal, and reports success nowhere else."""
    return episode_return > 0


class OneHotView(gym.ObservationWrapper):
    """The agent's 7x7 view as one vector; the mission text and the compass direction are left out.

    Observations have shape `(980,)`, float32, each 0 or 1: for every cell, in the order of `obs["image"]`, one of 11
    objects, one of 6 colours and one of 3 door states, as MiniGrid's `OneHotPartialObsWrapper` has them.

    The wrapper also replaces the environment's `gen_obs` by an equal one that looks only at the rows which can be
    seen; MiniGrid's own copies and turns grids of objects, and takes nearly all the time of a step.

    Args:
        env: A MiniGrid environment with its default view: 7x7 cells, opaque walls.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        from minigrid.core.world_object import Wall

        self.observation_space = gym.spaces.Box(0.0, 1.0, (SIZE,), np.float32)
        self._outside = Wall()
        self._sim = cast(Any, self.unwrapped)
        self._sim.gen_obs = self._look

    def observation(self, observation: Mapping[str, Any]) -> np.ndarray:
        """Encode one of MiniGrid's observations."""
        vector = np.zeros(SIZE, np.float32)
        vector[FIRST_BIT + observation["image"].ravel()] = 1
        return vector

    def _look(self) -> dict[str, Any]:
        sim, image, seen = self._sim, bytearray(3 * VIEW * VIEW), 1 << VIEW // 2
        for far, offsets in enumerate(CELLS[sim.agent_dir]):
            row = self._row(offsets)
            clear = sum([1 << i for i, cell in enumerate(row) if cell is None or cell.see_behind()])
            seen, beyond = spread(seen, clear)
            for i, cell in enumerate(row):
                if seen >> i & 1:
                    _paint(image, i, far, cell)
            if not beyond:
                break
            seen = beyond
        _paint(image, VIEW // 2, 0, sim.carrying)
        pixels = np.frombuffer(image, np.uint8).reshape(VIEW, VIEW, 3)
        return {"image": pixels, "direction": sim.agent_dir, "mission": sim.mission}

    def _row(self, offsets: list[tuple[int, int]]) -> list[Any]:
        sim, (x, y) = self._sim, map(int, self._sim.agent_pos)
        width, height, cells = sim.width, sim.height, sim.grid.grid
        return [
            cells[(y + dy) * width + x + dx] if 0 <= x + dx < width and 0 <= y + dy < height else self._outside
            for dx, dy in offsets
        ]


@cache
def spread(seen: int, clear: int) -> tuple[int, int]:
    """Spread sight through one row of the view, as MiniGrid's `Grid.process_vis` does.

    Args:
        seen: The cells of the row that are seen from the row before, one bit each.
        clear: The cells of the row that can be seen through.

    Returns:
        All cells seen in this row, and those seen from it in the next.
    """
    beyond = 0
    for order, side in ((range(VIEW - 1), 1), (range(VIEW - 1, 0, -1), -1)):
        for i in order:
            if seen & clear & 1 << i:
                seen |= 1 << i + side
                beyond |= 1 << i | 1 << i + side
    return seen, beyond


def plan_minigrid(env: gym.Env[Any, Any]) -> Callable[[Any], int]:
    """Make the expert for `multiroom` and `doorkey`: a shortest path by breadth-first search in the simulator.

    A plan is searched once per target: the key and the locked door, where there is one, then the goal. It is searched
    again after a reset, and when the agent has left it.

    Args:
        env: One of these environments, wrapped or not.

    Returns:
        A function from an observation, which is not looked at, to an action.
    """
    sim: Any = env.unwrapped
    plan: dict[str, Any] = {"grid": None}

    def act(observation: Any) -> int:
        # MiniGrid builds a new grid in each reset, and in no other place.
        if sim.grid is not plan["grid"]:
            plan.update(grid=sim.grid, places=_places(sim), target=None)
        here = (int(sim.agent_pos[0]), int(sim.agent_pos[1]), int(sim.agent_dir))
        target = _target(sim, plan["places"])
        if target != plan["target"] or here not in plan["moves"]:
            plan.update(target=target, moves=_route(sim.grid, here, target))
        return _perform(plan["moves"][here], sim.grid.get(*_front(here)))

    return act


def _tasks() -> Any:
    try:
        from minigrid import envs
    except ImportError as error:
        raise ImportError('MiniGrid is not installed; run: pip install "rlstages[minigrid]"') from error
    return envs


def _paint(image: bytearray, column: int, far: int, cell: Any) -> None:
    # Images are stored column by column, the agent's own row last.
    start = 3 * (VIEW * column + VIEW - 1 - far)
    image[start : start + 3] = EMPTY if cell is None else bytes(cell.encode())


def _places(sim: Any) -> dict[str, tuple[Any, tuple[int, int]]]:
    cells = enumerate(sim.grid.grid)
    return {cell.type: (cell, (i % sim.width, i // sim.width)) for i, cell in cells if cell is not None}


def _target(sim: Any, places: dict[str, tuple[Any, tuple[int, int]]]) -> tuple[int, int]:
    door, door_place = places.get("door", (None, (0, 0)))
    if door is None or not door.is_locked:
        return places["goal"][1]
    if sim.carrying is not None:
        return door_place
    x, y = places["key"][0].cur_pos
    return int(x), int(y)


def _route(grid: Any, start: State, target: tuple[int, int]) -> dict[State, int]:
    came: dict[State, tuple[State, int]] = {}
    queue = deque([start])
    while _front(queue[0]) != target:
        x, y, direction = state = queue.popleft()
        choices = [(LEFT, (x, y, (direction - 1) % 4)), (RIGHT, (x, y, (direction + 1) % 4))]
        if _passable(grid.get(*_front(state))):
            choices.append((FORWARD, (*_front(state), direction)))
        for move, reached in choices:
            if reached not in came and reached != start:
                came[reached] = (state, move)
                queue.append(reached)
    state = queue[0]
    moves = {state: FORWARD}
    while state != start:
        state, move = came[state]
        moves[state] = move
    return moves


def _front(state: State) -> tuple[int, int]:
    x, y, direction = state
    return x + STEPS[direction][0], y + STEPS[direction][1]


def _passable(cell: Any) -> bool:
    return cell is None or cell.type in ("goal", "key") or (cell.type == "door" and not cell.is_locked)


def _perform(move: int, ahead: Any) -> int:
    if move != FORWARD or ahead is None:
        return move
    if ahead.type == "key":
        return PICKUP
    return TOGGLE if ahead.type == "door" and not ahead.is_open else FORWARD
