"""Copy Meta-World's scripted policy of one task; an episode is solved when any of its steps is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import metaworld  # noqa: F401 - registers the ids
import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, SuccessThreshold


class Seeded(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Follows the seed of a reset, which Meta-World ignores, and has bounds that hold every observation."""

    def __init__(self, env: gym.Env[np.ndarray, np.ndarray]) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset to one of the task's 50 goals."""
        if seed is not None:
            self.unwrapped.seed(seed)
        return self.env.reset(options=options)


def make(task: str) -> gym.Env[np.ndarray, np.ndarray]:
    """Return one task of Meta-World with the 50 goals of its own seed 0, cut after 200 steps."""
    return Seeded(gym.make("Meta-World/MT1", env_name=task, seed=0, max_episode_steps=200, disable_env_checker=True))


def scripted(env: gym.Env[Any, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the task's scripted policy within the action bounds, to which Meta-World clips it anyway."""
    policy = ENV_POLICY_MAP[env.unwrapped.spec.kwargs["env_name"]]()
    return lambda observation: np.clip(policy.get_action(observation), -1.0, 1.0).astype(np.float32)


def curriculum(task: str = "drawer-open-v3", episodes: int = 30) -> Curriculum:
    """Return a clone of the scripted policy.

    Args:
        task: Such as `drawer-open-v3` or `door-open-v3`.
        episodes: That the scripted policy shows.
    """
    env = Environment(make, task=task, success="success", success_at="any")
    return Curriculum(
        "metaworld-doors",
        agent=Agent("PPO", policy="MlpPolicy", n_envs=8, normalize_observations=True),
        stages=[
            BehaviorCloning(
                "clone",
                env,
                expert=Expert(scripted, episodes=episodes),
                until=SuccessThreshold(0.6),
                max_epochs=60,
                evaluation_episodes=16,
            )
        ],
    )
