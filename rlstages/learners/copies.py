"""The copies that a stage trains in: begun, saved, and brought back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, VecTransposeImage, unwrap_vec_wrapper

from rlstages.environments.monitor import monitor_of
from rlstages.randomness import random_state_kept


def begin_copies(model: OnPolicyAlgorithm, env: VecEnv) -> None:
    """Let a model train in these copies, from new episodes on."""
    model.set_env(env)
    model._last_obs = None
    _set_up(model)


def copies_state(model: OnPolicyAlgorithm, env: VecEnv) -> dict[str, Any]:
    """Return where all copies are between two rollouts, and the statistics of their returns."""
    returns = None
    if isinstance(env, VecNormalize):
        moments = {name: float(getattr(env.ret_rms, name)) for name in ("mean", "var", "count")}
        returns = {"discounted": env.returns.copy(), **moments}
    return {
        "monitor": monitor_of(env).state_dict(),
        "episode_starts": cast(np.ndarray, model._last_episode_starts),
        "returns": returns,
    }


def restore_copies(model: OnPolicyAlgorithm, env: VecEnv, state: Mapping[str, Any]) -> list[int]:
    """Let a model train on in copies that are brought back to where they were.

    Args:
        model: Goes on training.
        env: New copies, made as those were.
        state: What `copies_state` returned.

    Returns:
        The copies that did not come back as they were.
    """
    with random_state_kept():
        observations, lost = monitor_of(env).load_state_dict(state["monitor"])
    starts = np.array(state["episode_starts"], dtype=bool) | (monitor_of(env).lengths == 0)
    if isinstance(env, VecNormalize):
        moments = state["returns"]
        env.returns = np.array(moments["discounted"])
        env.returns[starts] = 0.0
        for name in ("mean", "var", "count"):
            setattr(env.ret_rms, name, moments[name])
    transposed = unwrap_vec_wrapper(env, VecTransposeImage)
    model.set_env(env)
    model._last_obs = observations if transposed is None else transposed.transpose_observations(observations)
    model._last_episode_starts = starts
    _set_up(model)
    return lost


def _set_up(model: OnPolicyAlgorithm) -> None:
    model._setup_learn(0, reset_num_timesteps=False)
