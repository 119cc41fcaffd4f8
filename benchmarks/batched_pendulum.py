"""gymnasium's Pendulum-v1, all copies in one call: the continuous counterpart of benchmarks/batched_cartpole.py."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlstages import BatchedEnv

MOST_SPEED, MOST_TORQUE, TAU = 8.0, 2.0, 0.05
MOST_STEPS = 200


class BatchedPendulum(BatchedEnv):
    """Steps all copies at once.

    Args:
        num_envs: Number of copies.
    """

    def __init__(self, num_envs: int) -> None:
        high = np.array([1.0, 1.0, MOST_SPEED], np.float32)
        self.single_observation_space = gym.spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = gym.spaces.Box(-MOST_TORQUE, MOST_TORQUE, (1,), np.float32)
        super().__init__(num_envs)
        self.angles, self.speeds = np.zeros(num_envs), np.zeros(num_envs)
        self.time = np.zeros(num_envs, np.int64)
        self._never = np.zeros(num_envs, bool)

    def start(self, copies: np.ndarray, seeds: np.ndarray) -> None:
        """Begin new episodes; see `BatchedEnv.start`."""
        for copy, seed in zip(copies, seeds, strict=True):
            self.angles[copy], self.speeds[copy] = np.random.default_rng(seed).uniform(-1.0, 1.0, 2) * (np.pi, 1.0)
        self.time[copies] = 0

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every copy once; see `BatchedEnv.advance`."""
        torques = np.clip(actions[:, 0], -MOST_TORQUE, MOST_TORQUE)
        off = (self.angles + np.pi) % (2 * np.pi) - np.pi
        rewards = -(off**2 + 0.1 * self.speeds**2 + 0.001 * torques**2)
        self.speeds += (15.0 * np.sin(self.angles) + 3.0 * torques) * TAU
        np.clip(self.speeds, -MOST_SPEED, MOST_SPEED, out=self.speeds)
        self.angles += self.speeds * TAU
        self.time += 1
        return rewards.astype(np.float32), self._never, self.time >= MOST_STEPS, {}

    def observe(self, copies: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the observations of some copies; see `BatchedEnv.observe`."""
        angles = self.angles[copies]
        return np.stack([np.cos(angles), np.sin(angles), self.speeds[copies]], 1).astype(np.float32)
