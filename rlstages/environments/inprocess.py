"""Copies of an environment that are stepped one after another, in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv


class InProcess(DummyVecEnv):
    """stable-baselines3's `DummyVecEnv` without its deep copies, which cost more than a cheap environment's step."""

    def step_wait(self) -> Any:
        """Step all copies, and start new episodes where one ended."""
        infos: list[dict[str, Any]] = []
        for index, (env, action) in enumerate(zip(self.envs, self.actions, strict=True)):
            seen, self.buf_rews[index], terminated, truncated, info = env.step(action)
            # An environment may go on using its dictionary.
            info = dict(info)
            self.buf_dones[index] = ended = terminated or truncated
            if ended:
                info["TimeLimit.truncated"] = truncated and not terminated
                info["terminal_observation"] = seen
                seen, self.reset_infos[index] = env.reset()
            self._save_obs(index, seen)
            infos.append(info)
        self.buf_infos = infos
        return self._obs_from_buf(), self.buf_rews.copy(), self.buf_dones.copy(), infos

    def _obs_from_buf(self) -> Any:
        kept: Any = {key: np.copy(values) for key, values in self.buf_obs.items()}
        return kept.get(None, kept)
