"""gymnasium's CartPole-v1, all copies in one call: what a batched environment brings on a task that everybody knows."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlstages import BatchedEnv

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL = CART + POLE
MOST_STEPS = 500


class BatchedCartPole(BatchedEnv):
    """Steps all copies at once.

    Args:
        num_envs: Number of copies.
    """

    def __init__(self, num_envs: int) -> None:
        high = np.array([4.8, np.inf, 0.41887903, np.inf], np.float32)
        self.single_observation_space = gym.spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        super().__init__(num_envs)
        self.states = np.zeros((4, num_envs))
        self.time = np.zeros(num_envs, np.int64)
        self._rates = np.zeros((4, num_envs))
        self._ones = np.ones(num_envs, np.float32)

    def start(self, copies: np.ndarray, seeds: np.ndarray) -> None:
        """Begin new episodes; see `BatchedEnv.start`."""
        for copy, seed in zip(copies, seeds, strict=True):
            self.states[:, copy] = np.random.default_rng(seed).uniform(-0.05, 0.05, 4)
        self.time[copies] = 0

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every copy once; see `BatchedEnv.advance`."""
        x, x_dot, theta, theta_dot = self.states
        cos, sin = np.cos(theta), np.sin(theta)
        push = (actions * (2 * FORCE) - FORCE + POLE * HALF_LENGTH * theta_dot * theta_dot * sin) / TOTAL
        turn = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE / TOTAL * cos * cos))
        rates = self._rates
        rates[0], rates[1], rates[2], rates[3] = (
            x_dot,
            push - (POLE * HALF_LENGTH / TOTAL) * turn * cos,
            theta_dot,
            turn,
        )
        rates *= TAU
        self.states += rates
        self.time += 1
        terminated = (np.abs(x) > 2.4) | (np.abs(theta) > 0.20943951)
        return self._ones, terminated, self.time >= MOST_STEPS, {}

    def observe(self, copies: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the observations of some copies; see `BatchedEnv.observe`."""
        return self.states[:, copies].T.astype(np.float32, order="C")
