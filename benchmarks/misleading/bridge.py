"""Copy a walker that takes the bridge, then cross the same valley when the bridge does not hold.

The bridge is the shortest way, and the only one that the expert ever shows. In the second variant whoever steps on it
falls, so that all that was copied leads nowhere; the way around is twice as long.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold

MAP = ("S.~~.G", "..==..", "..~~..", "......")
"""Start, goal, water and bridge; the last row is the way around."""
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Valley(gym.Env[int, int]):
    """A grid to cross; the observation is the number of the cell, and falling into the water ends the episode.

    Args:
        bridge: Whether the bridge holds.
    """

    observation_space = gym.spaces.Discrete(len(MAP) * len(MAP[0]))
    action_space = gym.spaces.Discrete(len(MOVES))

    def __init__(self, bridge: bool = True) -> None:
        self.deadly = "~" if bridge else "~="
        self.place, self.steps = (0, 0), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Start at one of the three cells around the start."""
        super().reset(seed=seed)
        self.place, self.steps = ((0, 0), (0, 1), (1, 0))[int(self.np_random.integers(3))], 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move, unless the edge of the map is in the way; one move in ten goes in a random direction."""
        if self.np_random.random() < 0.1:
            action = int(self.np_random.integers(len(MOVES)))
        down, right = MOVES[int(action)]
        row, column = self.place[0] + down, self.place[1] + right
        if 0 <= row < len(MAP) and 0 <= column < len(MAP[0]):
            self.place = row, column
        self.steps += 1
        here = MAP[self.place[0]][self.place[1]]
        there = here == "G"
        return self._seen(), float(there), there or here in self.deadly, self.steps >= 60, {"is_success": there}

    def _seen(self) -> int:
        return self.place[0] * len(MAP[0]) + self.place[1]


def over_the_bridge(env: gym.Env[Any, Any]) -> Any:
    """Return a walker that goes to the bridge's row, over it, and up to the goal."""

    def act(seen: int) -> int:
        row, column = divmod(int(seen), len(MAP[0]))
        if column == len(MAP[0]) - 1:
            return 0
        return 3 if row == 1 else 1 if row < 1 else 0

    return act


def curriculum(max_steps: int = 120_000) -> Curriculum:
    """Return the ladder from the bridge that holds to the one that does not."""
    solid, broken = (Environment(Valley, bridge=bridge) for bridge in (True, False))
    return Curriculum(
        "bridge",
        agent=Agent("PPO"),
        stages=[
            BehaviorCloning("clone", solid, expert=Expert(over_the_bridge, episodes=60)),
            FineTuning("solid", solid, until=SuccessThreshold(0.7), max_steps=50_000),
            FineTuning("broken", broken, until=SuccessThreshold(0.7), max_steps=max_steps),
        ],
    )
