"""Copies of an environment that are stepped one after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv

from rlstages.environments.guard import Note, guard_of
from rlstages.environments.seeding import EpisodeStart, SeededEpisodes
from rlstages.environments.spaces import detached


class InProcess(DummyVecEnv):
    """stable-baselines3's `DummyVecEnv` without its deep copies.

    All arrays that are returned are the caller's own. Infos are borrowed from the environments, which may write into
    them in the next step; those of an episode's last step are the caller's too.

    Args:
        makers: Make the environments: seeded, each behind its guard.

    Attributes:
        notes: What was doubtful in the environments' last step or reset.
    """

    def __init__(self, makers: Sequence[Callable[[], SeededEpisodes]]) -> None:
        super().__init__(list(makers))
        self.envs: list[SeededEpisodes]  # type: ignore[assignment]
        self.notes: list[Note] = []
        self._guards = [guard_of(env) for env in self.envs]

    @property
    def starts(self) -> list[EpisodeStart]:
        """The start of each environment's current episode."""
        return [env.begun_with for env in self.envs]

    def begin_with(self, starts: Sequence[EpisodeStart]) -> None:
        """Let the coming episodes of each environment start in the way given for it."""
        for env, start in zip(self.envs, starts, strict=True):
            env.begin_with(start)

    def replay(self, given: Sequence[tuple[int, EpisodeStart, np.ndarray]]) -> list[tuple[Any, bool]]:
        """Have each environment play an episode again; see `SeededEpisodes.replay`."""
        return [env.replay(*one) for env, one in zip(self.envs, given, strict=True)]

    def reset(self) -> Any:
        """Start an episode in each environment."""
        observations = super().reset()
        self._gather_notes()
        return observations

    def step_wait(self) -> Any:
        """Step all environments, and start new episodes where one ended."""
        rows: dict[Any, np.ndarray] = {key: np.empty_like(values) for key, values in self.buf_obs.items()}
        rewards, dones = np.empty_like(self.buf_rews), np.empty_like(self.buf_dones)
        only = rows.get(None)
        infos: list[dict[str, Any]] = []
        for copy, (guard, action) in enumerate(zip(self._guards, self.actions, strict=True)):
            seen, rewards[copy], terminated, truncated, info = guard.step(action)
            dones[copy] = ended = terminated or truncated
            if ended:
                # Before the reset: the environment may go on using its dictionary and its arrays.
                info = {
                    **detached(info),
                    "TimeLimit.truncated": truncated and not terminated,
                    "terminal_observation": seen,
                }
                seen, self.reset_infos[copy] = self.envs[copy].reset()
            infos.append(info)
            if only is not None:
                only[copy] = seen
            else:
                for key, row in rows.items():
                    row[copy] = seen[key]
        self._gather_notes()
        return rows if only is None else only, rewards, dones, infos

    def _gather_notes(self) -> None:
        self.notes = [note for guard in self._guards if guard.notes for note in guard.take_notes()]

    def _obs_from_buf(self) -> Any:
        kept: Any = {key: np.copy(values) for key, values in self.buf_obs.items()}
        return kept.get(None, kept)
