"""Copy a walk along the edge of gymnasium's cliff, then walk there when the ground is slippery.

On dry ground the shortest way leads along the edge. On slippery ground a step goes astray in two of three cases, so
that the edge is deadly and the safe way leads far above it.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold

UP, RIGHT, DOWN = 0, 1, 2
WIDTH, START = 12, 36


class FallsEnd(gym.Wrapper[Any, Any, Any, Any]):
    """A fall ends the episode; only the goal is rewarded, and counts as success."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Walk."""
        seen, reward, ended, cut, info = self.env.step(action)
        return seen, float(ended), ended or float(reward) < -1, cut, {**info, "is_success": bool(ended)}


def cliff(slippery: bool) -> gym.Env[Any, Any]:
    """Return gymnasium's cliff, for 100 steps."""
    return FallsEnd(gym.make("CliffWalking-v1", is_slippery=slippery, max_episode_steps=100))


def along_the_edge(env: gym.Env[Any, Any]) -> Any:
    """Return a walker that takes the shortest way."""

    def act(seen: Any) -> int:
        cell = int(seen)
        if cell == START:
            return UP
        return DOWN if cell % WIDTH == WIDTH - 1 else RIGHT

    return act


def curriculum(max_steps: int = 120_000) -> Curriculum:
    """Return the ladder from dry to slippery ground."""
    dry, slippery = (Environment(cliff, slippery=slippery) for slippery in (False, True))
    return Curriculum(
        "cliff",
        agent=Agent("PPO"),
        stages=[
            BehaviorCloning("clone", dry, expert=Expert(along_the_edge, episodes=30)),
            FineTuning("dry", dry, until=SuccessThreshold(0.9), max_steps=50_000),
            FineTuning("slippery", slippery, until=SuccessThreshold(0.8), max_steps=max_steps),
        ],
    )
