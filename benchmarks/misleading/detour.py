"""Copy a pilot that flies straight to the goal, then reach it when a wall stands in the way.

Actions are continuous. The pilot's are all the same, so the clone's noise falls to its floor, and a policy with so
little noise hardly ever finds the gap beside the wall.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold

GOAL, REACH, PACE = np.array([0.9, 0.5]), 0.15, 0.08
WALL = (0.45, 0.55, 0.3, 1.0)
"""From x to x, from y to y."""


class Field(gym.Env[np.ndarray, np.ndarray]):
    """A unit square to cross; touching the wall ends the episode.

    Args:
        wall: Whether there is one.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, wall: bool = False) -> None:
        self.wall, self.place, self.steps = wall, np.zeros(2), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at the left."""
        super().reset(seed=seed)
        self.place, self.steps = np.array([0.1, 0.5 + 0.1 * self.np_random.uniform(-1, 1)]), 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Fly."""
        self.place = np.clip(self.place + PACE * np.clip(action, -1, 1), 0.0, 1.0)
        self.steps += 1
        left, right, low, high = WALL
        x, y = self.place.tolist()
        hit = self.wall and left <= x <= right and low <= y <= high
        there = bool(np.linalg.norm(self.place - GOAL) < REACH)
        return self._seen(), float(there), there or hit, self.steps >= 60, {"is_success": there}

    def _seen(self) -> np.ndarray:
        return (2 * self.place - 1).astype(np.float32)


def straight_on(env: gym.Env[Any, Any]) -> Any:
    """Return a pilot that flies towards the goal at full speed."""

    def act(seen: np.ndarray) -> np.ndarray:
        to = GOAL - (np.asarray(seen, np.float64) + 1) / 2
        return (to / max(np.abs(to).max(), 1e-6)).astype(np.float32)

    return act


def curriculum(max_steps: int = 120_000) -> Curriculum:
    """Return the ladder from the open field to the one with a wall."""
    free, walled = (Environment(Field, wall=wall) for wall in (False, True))
    return Curriculum(
        "detour",
        agent=Agent("PPO"),
        stages=[
            BehaviorCloning("clone", free, expert=Expert(straight_on, episodes=300), max_epochs=60),
            FineTuning("free", free, until=SuccessThreshold(0.9), max_steps=50_000),
            FineTuning("walled", walled, until=SuccessThreshold(0.8), max_steps=max_steps),
        ],
    )
