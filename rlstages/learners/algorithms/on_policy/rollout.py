"""A rollout: the policy plays a fixed number of steps in every copy, and what it saw and did is kept in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.joined import idle_copies
from rlstages.learners.algorithms.on_policy.protocol import Engine, within
from rlstages.learners.sb3 import stand, standing


def collect(model: OnPolicyAlgorithm, env: VecEnv, engine: Engine, trace_decay: float) -> RolloutBuffer:
    """Play one rollout, as stable-baselines3's `collect_rollouts` does.

    Args:
        model: Its last observations are where the rollout begins, and its buffer is filled.
        env: The copies that these observations are of.
        engine: Acts.
        trace_decay: The lambda of generalised advantage estimation (arXiv:1506.02438).

    Returns:
        The model's buffer, with advantages and returns. Its `idle`, shape `(n_steps, n_envs)`, tells the rows that are
        resets of copies and no steps, or is `None`; `flattened` leaves these rows out.
    """
    buffer: Any = model.rollout_buffer
    idle: np.ndarray | None = None
    seen, starts = standing(model)
    cut_short: list[tuple[int, int, Any]] = []
    buffer.reset()
    engine.begin_rollout(buffer)
    for step in range(buffer.buffer_size):
        actions = engine.act(step, seen)
        _store(buffer.observations, step, seen)
        buffer.actions[step] = actions.reshape(buffer.n_envs, -1)
        buffer.episode_starts[step] = starts
        seen, rewards, starts, infos = env.step(within(env.action_space, actions))
        buffer.rewards[step] = rewards
        resets = idle_copies(env)
        if resets is not None:
            idle = np.zeros((buffer.buffer_size, buffer.n_envs), bool) if idle is None else idle
            idle[step] = resets
        if np.count_nonzero(starts):
            for copy in np.flatnonzero(starts).tolist():
                if infos[copy].get("TimeLimit.truncated", False):
                    cut_short.append((step, copy, infos[copy]["terminal_observation"]))
    # What an episode that was cut short would still have brought (stable-baselines3 #633).
    values = engine.end_rollout([last for _, _, last in cut_short], seen)
    for (step, copy, _), value in zip(cut_short, values, strict=False):
        buffer.rewards[step, copy] += np.float32(model.gamma) * value
    buffer.ends = values[len(cut_short) :], starts
    estimate_advantages(buffer, model.gamma, trace_decay)
    buffer.pos, buffer.full, buffer.idle = buffer.buffer_size, True, idle
    model.num_timesteps += steps_in(buffer)
    stand(model, seen, starts)
    return buffer  # type: ignore[no-any-return]


def steps_in(buffer: RolloutBuffer) -> int:
    """Return how many steps of environments a rollout holds."""
    idle: np.ndarray | None = getattr(buffer, "idle", None)
    return buffer.buffer_size * buffer.n_envs - (0 if idle is None else int(np.count_nonzero(idle)))


Rollout = dict[str, Any]
"""The arrays of a rollout, by their names in the buffer; those of observations of several parts by key."""
_ARRAYS = ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns", "episode_starts")


def taken(buffer: RolloutBuffer) -> Rollout:
    """Return copies of a rollout's arrays, before anything was learned from it."""
    arrays = vars(buffer)
    kept: Rollout = {name: _copied(arrays[name]) for name in _ARRAYS}
    idle = arrays.get("idle")
    return kept if idle is None else {**kept, "idle": idle.copy()}


def refill(buffer: RolloutBuffer, rollouts: Sequence[Rollout]) -> None:
    """Fill a buffer with rollouts of one policy that were taken from it, joined along the axis of steps."""
    buffer.reset()
    vars(buffer).update({name: _joined([rollout[name] for rollout in rollouts]) for name in _ARRAYS})
    known = any("idle" in rollout for rollout in rollouts)
    idle = [rollout.get("idle", np.zeros(rollout["rewards"].shape, bool)) for rollout in rollouts]
    vars(buffer)["idle"] = np.concatenate(idle) if known else None
    buffer.pos, buffer.full = buffer.buffer_size, True


def size_of(rollout: Rollout) -> int:
    """Return the bytes of a rollout's arrays."""
    values = [part for array in rollout.values() for part in (array.values() if isinstance(array, dict) else [array])]
    return sum(part.nbytes for part in values)


def states_in(buffer: RolloutBuffer) -> Any:
    """Return copies of the observations of a rollout that nothing was learned from yet, first axis the states."""
    kept: Any = buffer.observations

    def joined(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        rows: np.ndarray = array.reshape(-1, *shape).copy()
        return rows

    if isinstance(kept, dict):
        return {key: joined(array, array.shape[2:]) for key, array in kept.items()}
    return joined(kept, buffer.observation_space.shape or ())


def flattened(buffer: RolloutBuffer) -> RolloutBuffer:
    """Join the axes of steps and copies of a buffer's arrays in place, as its own `get` does, without idle rows."""
    if not buffer.generator_ready:
        idle: np.ndarray | None = getattr(buffer, "idle", None)
        stepped = None if idle is None else ~idle.T.reshape(-1)

        def joined(array: np.ndarray) -> np.ndarray:
            rows = buffer.swap_and_flatten(array)
            return rows if stepped is None else rows[stepped]

        arrays: dict[str, Any] = vars(buffer)
        for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
            value = arrays[name]
            if isinstance(value, dict):
                arrays[name] = {key: joined(part) for key, part in value.items()}
            else:
                arrays[name] = joined(value)
        buffer.generator_ready = True
    return buffer


def _joined(arrays: Sequence[Any]) -> Any:
    if isinstance(arrays[0], dict):
        return {key: np.concatenate([array[key] for array in arrays]) for key in arrays[0]}
    return np.concatenate(arrays)


def _copied(array: Any) -> Any:
    return {key: part.copy() for key, part in array.items()} if isinstance(array, dict) else array.copy()


def _store(kept: Any, step: int, seen: Any) -> None:
    if isinstance(kept, dict):
        for key, array in kept.items():
            array[step] = seen[key].reshape(array[step].shape)
    else:
        kept[step] = seen.reshape(kept[step].shape)


def estimate_advantages(buffer: RolloutBuffer, gamma: float, trace_decay: float) -> None:
    """Do what `compute_returns_and_advantage` does, with the sums of all steps at once.

    Args:
        buffer: As `collect` has filled it; its `ends` are the values of the last observations, and which of these begin
            episodes.
        gamma: Discount.
        trace_decay: The lambda of generalised advantage estimation.
    """
    last_values, dones = buffer.ends  # type: ignore[attr-defined]
    values, advantages = buffer.values, buffer.advantages
    following, going_on = np.empty_like(values), np.empty_like(values)
    following[:-1], following[-1] = values[1:], last_values
    going_on[:-1], going_on[-1] = 1.0 - buffer.episode_starts[1:], 1.0 - dones.astype(np.float32)
    delta = buffer.rewards + gamma * following * going_on - values
    decay = gamma * trace_decay * going_on
    ahead = np.zeros_like(advantages[0])
    for step in range(len(values) - 1, -1, -1):
        ahead = np.add(delta[step], decay[step] * ahead, out=advantages[step])
    buffer.returns = advantages + values
