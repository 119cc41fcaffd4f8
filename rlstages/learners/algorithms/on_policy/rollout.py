"""Rollouts: a fixed number of steps of the policy in every environment, stored in arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.joined import idle_copies
from rlstages.learners.algorithms.on_policy.protocol import Engine, within
from rlstages.learners.sb3 import stand, standing

_ARRAYS = ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns", "episode_starts")
_LEARNED_FROM = ("observations", "actions", "values", "log_probs", "advantages", "returns")


class Rollout(RolloutBuffer):
    """The rollout buffer of stable-baselines3, with two more attributes.

    Attributes:
        idle: Mask of rows that are resets of environments instead of steps, shape `(n_steps, n_envs)`, or `None` if
            there are none.
        ends: Values of the observations after the rollout, and whether these begin episodes, each of shape
            `(n_envs,)`.
    """

    idle: np.ndarray | None = None
    ends: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def steps(self) -> int:
        """Number of environment steps."""
        return self.buffer_size * self.n_envs - (0 if self.idle is None else int(np.count_nonzero(self.idle)))

    def taken(self) -> dict[str, Any]:
        """Return copies of the arrays by name, before an update has flattened them."""
        kept = {name: _copied(getattr(self, name)) for name in _ARRAYS}
        return kept if self.idle is None else {**kept, "idle": self.idle.copy()}

    def refill(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Replace the contents by several results of `taken`, concatenated along the axis of steps."""
        self.reset()
        for name in _ARRAYS:
            setattr(self, name, _joined([part[name] for part in parts]))
        known = any("idle" in part for part in parts)
        idle = [part.get("idle", np.zeros(part["rewards"].shape, bool)) for part in parts]
        self.idle = np.concatenate(idle) if known else None
        self.pos, self.full = self.buffer_size, True

    def states(self) -> Any:
        """Return copies of the observations, before an update has flattened them; the first axis is the states."""

        def joined(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
            rows: np.ndarray = array.reshape(-1, *shape).copy()
            return rows

        kept: Any = self.observations
        if isinstance(kept, dict):
            return {key: joined(array, array.shape[2:]) for key, array in kept.items()}
        return joined(kept, self.observation_space.shape or ())

    def flatten(self) -> None:
        """Merge the axes of steps and environments in place, as `get` does, and drop idle rows."""
        if self.generator_ready:
            return
        stepped = None if self.idle is None else ~self.idle.T.reshape(-1)

        def joined(array: np.ndarray) -> np.ndarray:
            rows: np.ndarray = self.swap_and_flatten(array)
            return rows if stepped is None else rows[stepped]

        for name in _LEARNED_FROM:
            value = getattr(self, name)
            parts = isinstance(value, dict)
            setattr(self, name, {key: joined(part) for key, part in value.items()} if parts else joined(value))
        self.generator_ready = True

    def estimate_advantages(self, gamma: float, gae_lambda: float) -> None:
        """Compute returns and advantages like `compute_returns_and_advantage`, vectorised over environments.

        Args:
            gamma: Discount factor.
            gae_lambda: Lambda of generalised advantage estimation (arXiv:1506.02438).
        """
        assert self.ends is not None
        last_values, dones = self.ends
        values, advantages = self.values, self.advantages
        following, going_on = np.empty_like(values), np.empty_like(values)
        following[:-1], following[-1] = values[1:], last_values
        going_on[:-1], going_on[-1] = 1.0 - self.episode_starts[1:], 1.0 - dones.astype(np.float32)
        delta = self.rewards + gamma * following * going_on - values
        decay = gamma * gae_lambda * going_on
        ahead = np.zeros_like(advantages[0])
        for step in range(len(values) - 1, -1, -1):
            ahead = np.add(delta[step], decay[step] * ahead, out=advantages[step])
        self.returns = advantages + values


class DictRollout(Rollout, DictRolloutBuffer):
    """A rollout whose observations are dictionaries."""


def collect(model: OnPolicyAlgorithm, env: VecEnv, engine: Engine, gae_lambda: float) -> Rollout:
    """Play one rollout, as stable-baselines3's `collect_rollouts` does.

    Args:
        model: Algorithm of stable-baselines3. The rollout begins at its last observations and fills its buffer.
        env: Environments of these observations.
        engine: Engine that acts.
        gae_lambda: Lambda of generalised advantage estimation (arXiv:1506.02438).

    Returns:
        The model's buffer, with advantages and returns.
    """
    buffer: Any = model.rollout_buffer
    idle: np.ndarray | None = None
    seen, starts = standing(model)
    cut_short: list[tuple[int, int, Any]] = []
    buffer.reset()
    engine.begin_rollout(buffer)
    # Act
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
    # Bootstrap the rewards of truncated episodes (stable-baselines3 #633)
    values = engine.end_rollout([last for _, _, last in cut_short], seen)
    for (step, copy, _), value in zip(cut_short, values, strict=False):
        buffer.rewards[step, copy] += np.float32(model.gamma) * value
    # Estimate advantages
    buffer.idle, buffer.ends = idle, (values[len(cut_short) :], starts)
    buffer.estimate_advantages(model.gamma, gae_lambda)
    buffer.pos, buffer.full = buffer.buffer_size, True
    model.num_timesteps += buffer.steps
    stand(model, seen, starts)
    return buffer  # type: ignore[no-any-return]


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
