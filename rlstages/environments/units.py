"""Copies that take a policy's actions, in [-1, 1], where their own have other bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rlstages.environments.action_units import from_units, unit_space


def with_unit_actions(env: VecEnv) -> VecEnv:
    """Return copies that take actions as a policy gives them (`rlstages.environments.action_units`)."""
    return env if unit_space(env.action_space) is env.action_space else UnitActions(env)


class UnitActions(VecEnvWrapper):
    """Converts a policy's actions to those of the environment. Everything inside uses the environment's units.

    Args:
        venv: Copies, whose actions are a Box.
    """

    def __init__(self, venv: VecEnv) -> None:
        assert isinstance(venv.action_space, spaces.Box)
        super().__init__(venv, action_space=unit_space(venv.action_space))
        self._own = venv.action_space

    def reset(self) -> Any:
        """Start an episode in each environment."""
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Send each environment its action, in its own units."""
        self.venv.step_async(from_units(actions, self._own))

    def step_wait(self) -> Any:
        """Wait for all environments."""
        return self.venv.step_wait()
