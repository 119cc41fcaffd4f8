"""Copies of an environment that are stepped one after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv

from rlstages.environments.guard import CopyError, Note, guard_of
from rlstages.environments.seeding import EpisodeStart, SeededEpisodes
from rlstages.environments.spaces import detached
from rlstages.environments.watchdog import TimeLimit


class InProcess(DummyVecEnv):
    """stable-baselines3's `DummyVecEnv` at a price that a cheap environment can bear.

    It makes no deep copies, and one time limit and one handler of errors serve all copies of a step.

    Args:
        makers: Make the copies: seeded, each behind its guard.
        timeout: Seconds that a step of one copy may take.

    Attributes:
        notes: What was doubtful in the copies' last step or reset.
    """

    def __init__(self, makers: Sequence[Callable[[], SeededEpisodes]], timeout: float) -> None:
        super().__init__(list(makers))
        self.envs: list[SeededEpisodes]  # type: ignore[assignment]
        self.notes: list[Note] = []
        self._guards = [guard_of(env) for env in self.envs]
        self._limit = TimeLimit(timeout, "A step")

    @property
    def starts(self) -> list[EpisodeStart]:
        """How each copy's episode under way started."""
        return [env.begun_with for env in self.envs]

    def begin_with(self, starts: Sequence[EpisodeStart]) -> None:
        """Let the coming episodes of each copy start in the way given for it."""
        for env, start in zip(self.envs, starts, strict=True):
            env.begin_with(start)

    def replay(self, given: Sequence[tuple[int, EpisodeStart, np.ndarray]]) -> list[tuple[Any, bool]]:
        """Have each copy play an episode again; see `SeededEpisodes.replay`."""
        return [env.replay(*one) for env, one in zip(self.envs, given, strict=True)]

    def reset(self) -> Any:
        """Start an episode in each copy."""
        observations = super().reset()
        self._gather_notes()
        return observations

    def step_wait(self) -> Any:
        """Step all copies, and start new episodes where one ended."""
        rows: dict[Any, np.ndarray] = {key: np.empty_like(values) for key, values in self.buf_obs.items()}
        rewards, dones = np.empty_like(self.buf_rews), np.empty_like(self.buf_dones)
        only, limit = rows.get(None), self._limit
        infos: list[dict[str, Any]] = []
        guard = self._guards[0]
        try:
            with limit:
                for copy, (guard, action) in enumerate(zip(self._guards, self.actions, strict=True)):
                    limit.spent, limit.name = 0.0, guard.name
                    seen, rewards[copy], terminated, truncated, info = guard.accept(guard.env.step(action))
                    dones[copy] = ended = terminated or truncated
                    if ended:
                        # Before the reset: the environment may go on using its dictionary and its arrays.
                        info = {
                            **detached(info),
                            "TimeLimit.truncated": bool(truncated and not terminated),
                            "terminal_observation": detached(seen),
                        }
                        seen, self.reset_infos[copy] = self.envs[copy].reset()
                    infos.append(info)
                    if only is not None:
                        only[copy] = seen
                    else:
                        for key, row in rows.items():
                            row[copy] = seen[key]
        except CopyError:
            raise
        except (Exception, SystemExit) as error:
            raise guard.failure(error, "step") from error
        self._gather_notes()
        return rows if only is None else only, rewards, dones, infos

    def _gather_notes(self) -> None:
        self.notes = [note for guard in self._guards if guard.notes for note in guard.take_notes()]

    def _obs_from_buf(self) -> Any:
        kept: Any = {key: np.copy(values) for key, values in self.buf_obs.items()}
        return kept.get(None, kept)
