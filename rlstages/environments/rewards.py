"""Rewards divided by the spread of their discounted sums."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from rlstages.environments.monitor import monitor_of


class NormalizedRewards(VecNormalize):
    """stable-baselines3's `VecNormalize` for rewards alone, to which the reset of a copy is no step.

    Args:
        venv: The copies, with their monitor.
        gamma: Discounts the sums.
    """

    def __init__(self, venv: VecEnv, gamma: float) -> None:
        super().__init__(venv, norm_obs=False, norm_reward=True, gamma=gamma)
        self._monitor = monitor_of(venv)

    def _update_reward(self, reward: np.ndarray) -> None:
        self.returns = self.returns * self.gamma + reward
        idle = self._monitor.idle
        stepped = self.returns if idle is None else self.returns[~idle]
        if len(stepped):
            self.ret_rms.update(stepped)
