"""gymnasium's CartPole-v1, all copies in one call: what a batched environment brings on a task that everybody knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL = CART + POLE
MOST_STEPS = 500


class BatchedCartPole:
    """Steps all copies at once; an episode that ended waits until it is reset by `reset_mask`.

    Args:
        num_envs: Number of copies.
    """

    render_mode = None
    single_action_space = gym.spaces.Discrete(2)

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        high = np.array([4.8, np.inf, 0.41887903, np.inf], np.float32)
        self.single_observation_space = gym.spaces.Box(-high, high, dtype=np.float32)
        self._state = np.zeros((4, num_envs))
        self._rates = np.zeros((4, num_envs))
        self._time = np.zeros(num_envs, np.int64)
        self._ones = np.ones(num_envs, np.float32)

    def reset(self, seed: Sequence[int | None], options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start episodes in the copies of `reset_mask`, or in all."""
        for copy in np.flatnonzero(options["reset_mask"]) if options else range(self.num_envs):
            self._state[:, copy] = np.random.default_rng(seed[copy]).uniform(-0.05, 0.05, 4)
            self._time[copy] = 0
        return self._state.T.astype(np.float32), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Step all copies."""
        x, x_dot, theta, theta_dot = self._state
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
        self._state += rates
        self._time += 1
        terminated = (np.abs(x) > 2.4) | (np.abs(theta) > 0.20943951)
        return self._state.T.astype(np.float32, order="C"), self._ones, terminated, self._time >= MOST_STEPS, {}

    def close(self) -> None:
        """Nothing to close."""
