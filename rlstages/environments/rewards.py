"""Rewards divided by the spread of their discounted sums."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from rlstages.environments.joined import idle_copies


class NormalizedRewards(VecNormalize):
    """stable-baselines3's `VecNormalize` for rewards alone, to which the reset of an environment is no step.

    Args:
        venv: Copies, with their monitors.
        gamma: Discounts the sums.
    """

    def __init__(self, venv: VecEnv, gamma: float) -> None:
        super().__init__(venv, norm_obs=False, norm_reward=True, gamma=gamma)

    def _update_reward(self, reward: np.ndarray) -> None:
        self.returns = self.returns * self.gamma + reward
        idle = idle_copies(self.venv)
        stepped = self.returns if idle is None else self.returns[~idle]
        if len(stepped):
            self.ret_rms.update(stepped)
