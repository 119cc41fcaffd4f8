"""How much has been learned: the mean return of whole episodes, played outside the time that is measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.monitor import monitor_of


def mean_return(act: Callable[[np.ndarray], np.ndarray], env: VecEnv, seed: int = 0) -> float:
    """Return the mean return of one episode in each copy.

    Args:
        act: From observations of all copies to actions.
        env: Copies behind the project's own wrappers.
        seed: Copy `i` gets `seed + i`: the same seed gives the same episodes to different policies.
    """
    env.seed(seed)
    seen = env.reset()
    box = env.action_space if isinstance(env.action_space, spaces.Box) else None
    first: dict[int, float] = {}
    while len(first) < env.num_envs:
        # As the peers' networks want them; MuJoCo's are of 64 bits.
        actions = act(seen.astype(np.float32, copy=False))
        seen = env.step(actions if box is None else np.clip(actions, box.low, box.high))[0]
        for episode in monitor_of(env).take():
            first.setdefault(episode.copy, episode.total_reward)
    return float(np.mean(list(first.values())))
