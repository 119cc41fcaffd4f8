"""Natively batched environments behind stable-baselines3's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.guarding import CopyError, late, reason_of, traceback_of
from rlstages.environments.seeding import EpisodeSeeds
from rlstages.environments.watchdog import Overdue, TimeLimit


class BatchedVecEnv(VecEnv):
    """A natively batched environment behind stable-baselines3's interface.

    Args:
        batched: Steps all copies in one call and starts new episodes only by `reset(seed, options={"reset_mask": m})`.
            If it has `state`, `restore` and `observe`, as `rlstages_envs.batched.BatchedEnv` does, a run that is
            resumed finds its copies as they were.
        seeds: One source of episode seeds per copy.
    """

    def __init__(self, batched: Any, seeds: list[EpisodeSeeds], timeout: float = 300.0) -> None:
        self.batched = batched
        self._episode_seeds = seeds
        self._limit = TimeLimit(timeout, f"A step or reset of {batched}")
        self._actions = np.zeros(0)
        self.render_mode = batched.render_mode
        super().__init__(batched.num_envs, batched.single_observation_space, batched.single_action_space)

    def reset(self) -> np.ndarray:
        """Start an episode in each copy."""
        given = self._seeds
        starts = [s.next() if seed is None else seed for s, seed in zip(self._episode_seeds, given, strict=True)]
        self._reset_seeds()
        observations, _ = self._guard("reset", lambda: self.batched.reset(seed=starts))
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return np.asarray(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Step all copies, and start new episodes where one ended."""
        answer = self._guard("step", lambda: self.batched.step(self._actions))
        observations, rewards, terminated, truncated, more = answer
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if np.count_nonzero(dones):
            for copy in np.flatnonzero(dones):
                infos[copy] = {key: values[copy] for key, values in more.items()}
                infos[copy]["terminal_observation"] = observations[copy].copy()
                infos[copy]["TimeLimit.truncated"] = bool(truncated[copy] and not terminated[copy])
            starts = [s.next() if done else None for s, done in zip(self._episode_seeds, dones, strict=True)]
            options = {"reset_mask": dones}
            observations, _ = self._guard("reset", lambda: self.batched.reset(seed=starts, options=options))
        return observations, rewards.astype(np.float32), dones, infos

    def state_dict(self) -> dict[str, np.ndarray] | None:
        """Return the state of all copies, or `None` if the environment does not give it away."""
        return dict(self.batched.state()) if hasattr(self.batched, "state") else None

    def load_state_dict(
        self, state: Mapping[str, np.ndarray] | None, numbers: Sequence[int]
    ) -> tuple[np.ndarray, list[int]]:
        """Put all copies back; without a state, each begins its next episode.

        Args:
            state: What `state_dict` returned.
            numbers: Of the episode that each copy is in.

        Returns:
            Their observations, and the copies that have begun another episode.
        """
        for seeds, number in zip(self._episode_seeds, numbers, strict=True):
            seeds.number = number + 1
        if state is None:
            return self.reset(), list(range(self.num_envs))
        self.batched.restore(state)
        return np.asarray(self.batched.observe()), []

    def close(self) -> None:
        """Close the environment."""
        self.batched.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, once per copy."""
        return [getattr(self.batched, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the copies share their attributes."""
        raise NotImplementedError("the copies of a batched environment share their attributes")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: the copies have no methods of their own."""
        raise NotImplementedError("the copies of a batched environment have no methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return that no copy is wrapped."""
        return [False] * len(list(self._get_indices(indices)))

    def _guard(self, call: str, work: Callable[[], Any]) -> Any:
        try:
            with self._limit:
                return work()
        except Overdue as error:
            raise CopyError(None, late(self._limit.seconds, f"{call}()"), traceback_of(error, skip=2)) from error
        except Exception as error:
            raise CopyError(None, f"raised {reason_of(error)} in {call}()", traceback_of(error, skip=2)) from error
