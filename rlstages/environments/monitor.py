"""What happens in all copies of an environment: episodes are counted and remembered, bad numbers refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.guard import CopyError
from rlstages.environments.in_process import InProcess
from rlstages.environments.replayed import Replayed, different_copies
from rlstages.environments.reports import Counts, Reports, Warn, log_warning
from rlstages.environments.seeding import OWN_START, EpisodeStart
from rlstages.environments.subprocesses import Workers
from rlstages.environments.success import SuccessJudge
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.environment import Environment


def monitor_of(env: VecEnv) -> EpisodeMonitor:
    """Return the monitor inside a vectorised environment."""
    while not isinstance(env, EpisodeMonitor):
        if not isinstance(env, VecEnvWrapper):
            raise TypeError("the environment has no EpisodeMonitor")
        env = env.venv
    return env


class EpisodeMonitor(VecEnvWrapper):
    """Counts episodes, refuses numbers that no learner can use, and names the place of whatever goes wrong.

    Args:
        venv: The copies.
        spec: What they are copies of.
        warn: Takes a sentence about what is doubtful in their numbers.

    Attributes:
        finished: Episodes that ended since they were last taken, in the order of their end.
        counts: How far each copy is in its episode.
    """

    venv: BatchedVecEnv | InProcess | Workers

    def __init__(self, venv: BatchedVecEnv | InProcess | Workers, spec: Environment, warn: Warn = log_warning) -> None:
        super().__init__(venv)
        self.finished: list[Episode] = []
        self.counts = Counts(self.num_envs)
        self._reports = Reports(spec, venv.observation_space, self.counts, warn)
        self._success = SuccessJudge(self.counts, self._reports)
        self._starts = [OWN_START] * self.num_envs
        self._coming = self._starts.copy()
        self._last: Any = None
        self._batched = venv if isinstance(venv, BatchedVecEnv) else None
        self._inside = venv if isinstance(venv, BatchedVecEnv) else Replayed(venv, spec, self.counts)

    def begin_with(self, starts: Sequence[EpisodeStart]) -> None:
        """Let the coming episodes of each copy start in the way given for it, until others are given.

        Episodes under way go on. The steps of a prefix are not counted, in `steps` as little as in an episode's return
        and length.

        Args:
            starts: One for each copy; `EpisodeStart()` is how episodes start where nothing is given.

        Raises:
            InputError: If a prefix leaves the action space, or a batch of copies cannot start so.
            EnvironmentFault: If a copy's process has died.
        """
        if list(starts) == self._coming:
            return
        for start in starts:
            start.actions(self.action_space)
        try:
            self.venv.begin_with(starts)
        except CopyError as error:
            raise self._reports.failure(error, 1) from error
        self._coming = list(starts)

    def reset(self) -> Any:
        """Reset all copies; episodes under way are dropped, and the count of episodes starts again.

        Raises:
            EnvironmentFault: If a copy fails, dies, hangs or gives numbers that are not finite.
        """
        try:
            observations = self.venv.reset()
        except CopyError as error:
            raise self._reports.failure(error, 0) from error
        self._starts = list(self.venv.starts)
        self.counts.clear()
        self._success.held[:] = False
        self.finished.clear()
        self._reports.pass_on(self.venv.notes, begun=True)
        self._reports.check(observations)
        self._last = observations
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Send the actions, and remember those of the episodes under way: with their seeds, they are their state.

        Raises:
            EnvironmentFault: If a copy's process has died.
        """
        if isinstance(self._inside, Replayed):
            self._inside.add(actions)
        try:
            # A copy: the environment may write into its actions, and the caller may keep these.
            self.venv.step_async(np.array(actions))
        except CopyError as error:
            raise self._reports.failure(error, 1) from error

    def step_wait(self) -> Any:
        """Step, check and count.

        Raises:
            EnvironmentFault: If a copy fails, dies, hangs or gives numbers that are not finite.
        """
        try:
            observations, rewards, dones, infos = self.venv.step_wait()
        except CopyError as error:
            raise self._reports.failure(error, 1) from error
        counts, reports, idle = self.counts, self._reports, self.idle
        counts.steps += 1
        counts.lengths += 1
        if idle is not None:
            counts.lengths[idle] = 0
        reports.pass_on(self.venv.notes, begun=False)
        reports.check_rewards(rewards)
        counts.returns += rewards
        self._success.look(infos, dones, None if self._batched is None else self._batched.infos)
        if np.count_nonzero(dones):
            self._end(np.flatnonzero(dones).tolist(), infos)
        # Where an episode ended, this is the first of the next one.
        reports.check(observations)
        self._last = observations
        return observations, rewards, dones, infos

    @property
    def idle(self) -> np.ndarray | None:
        """Which copies' last step was a reset and no step of an episode; see `BatchedVecEnv.idle`."""
        return None if self._batched is None else self._batched.idle

    @property
    def resets_itself(self) -> bool:
        """Whether the copies are a batch that begins their next episodes by itself, with seeds of its own."""
        return self._batched is not None and self._batched.resets_itself

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each copy's episode so far, shape `(num_envs,)`, in an array of the caller's own."""
        lengths: np.ndarray = self.counts.lengths.copy()
        return lengths

    def take(self) -> list[Episode]:
        """Return the finished episodes and forget them."""
        taken, self.finished = self.finished, []
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return where each copy's episode is: its start and actions so far, or the arrays of a batched environment.

        Nothing may be left in `finished`.
        """
        counts = self.counts
        return {
            "numbers": counts.numbers.copy(),
            "starts": [start.to_data() for start in self._starts],
            "coming": [start.to_data() for start in self._coming],
            "returns": counts.returns.copy(),
            "lengths": counts.lengths.copy(),
            "held": self._success.held.copy(),
            "steps": counts.steps,
            "inside": self._inside.state_dict(),
            "observations": self._last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[Any, list[int]]:
        """Bring each copy's episode back to where it was.

        Returns:
            The observations, and the copies that did not come back as they were: they go on from where replay led, or
            with their next episode where that one could not be played up to there.
        """
        self.counts.restore(state)
        self._success.held[:] = state["held"]
        starts = [EpisodeStart.from_data(start) for start in state["starts"]]
        self.begin_with([EpisodeStart.from_data(start) for start in state["coming"]])
        given = self.counts.numbers.tolist(), starts, state["observations"]
        observations, ended = self._inside.load_state_dict(state["inside"], *given)
        self._begin(ended)
        self._last = observations
        return observations, sorted({*ended, *different_copies(observations, state["observations"])})

    def _end(self, copies: list[int], infos: list[dict[str, Any]]) -> None:
        """Count the episodes that have ended, and begin the next ones."""
        for copy in copies:
            last = infos[copy]["terminal_observation"]
            parts = last if isinstance(last, dict) else {None: last}
            alone: Any = {key: np.asarray(part)[None] for key, part in parts.items()}
            self._reports.check(alone.get(None, alone), copy)
        counts = self.counts
        for copy in copies:
            solved = self._success.ended(copy, infos[copy])
            total, length = float(counts.returns[copy]), int(counts.lengths[copy])
            place, level = (copy, int(counts.numbers[copy])), self._starts[copy].level
            self.finished.append(Episode(*place, total, length, solved, counts.steps - length, level))
        self._begin(copies)
        self._reports.pass_on(self.venv.notes, begun=True)

    def _begin(self, copies: list[int]) -> None:
        """Begin the next episodes of some copies."""
        self._starts = list(self.venv.starts)
        self._success.held[copies] = False
        self.counts.next(copies)
