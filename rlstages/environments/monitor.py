"""What happens in all copies of an environment: episodes are counted and remembered, bad numbers refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rlstages.environments.batched_env import info_of
from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.guard import CopyError, traceback_of
from rlstages.environments.in_process import InProcess
from rlstages.environments.ranges import Finding, Ranges
from rlstages.environments.seeding import OWN_START, EpisodeStart
from rlstages.environments.spaces import stack
from rlstages.environments.subprocesses import Workers
from rlstages.environments.success import HELD_BEFORE, flags_in, info_key, is_true, success_rule, why_unknown
from rlstages.errors import Fault
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.environment import DEFAULT_SUCCESS, Environment

# What a warning says before this is the same whenever it is found again.
FIRST = " (first seen: "
Warn = Callable[[str], None]
log_warning = logging.getLogger(__name__).warning
_LEAST_REMEMBERED = 64


class EnvironmentFault(Fault):
    """An environment failed, or gave something that no learner can use.

    One sentence names the environment, the copy, the step and what it was; `trace` is the environment's own traceback,
    if it raised something.
    """


def monitor_of(env: VecEnv) -> EpisodeMonitor:
    """Return the monitor inside a vectorised environment."""
    while not isinstance(env, EpisodeMonitor):
        if not isinstance(env, VecEnvWrapper):
            raise TypeError("the environment has no EpisodeMonitor")
        env = env.venv
    return env


Copies = BatchedVecEnv | InProcess | Workers


class EpisodeMonitor(VecEnvWrapper):
    """Counts episodes, refuses numbers that no learner can use, and names the place of whatever goes wrong.

    Args:
        venv: The copies.
        spec: What they are copies of.
        warn: Takes a sentence about what is doubtful in their numbers.

    Attributes:
        finished: Episodes that ended since they were last taken, in the order of their end.
        steps: Steps of every copy since all were reset.
    """

    venv: Copies

    def __init__(self, venv: Copies, spec: Environment, warn: Warn = log_warning) -> None:
        super().__init__(venv)
        self.finished: list[Episode] = []
        self.steps = 0
        self._spec, self._warn = spec, warn
        self._ranges = Ranges(venv.observation_space)
        self._noted: set[str] = set()
        self._solved = success_rule(spec.success)
        self._key = info_key(spec.success)
        self._in_any_step = spec.success_at == "any"
        # Whether success held in an earlier step of each copy's episode.
        self._held = np.zeros(self.num_envs, bool)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._numbers = np.zeros(self.num_envs, dtype=np.int64)
        self._starts = [OWN_START] * self.num_envs
        self._coming = self._starts.copy()
        self._played: list[np.ndarray] = []
        self._most_played = _LEAST_REMEMBERED
        self._last: Any = None
        self._batched = venv if isinstance(venv, BatchedVecEnv) else None

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
            raise self._failure(error, 1) from error
        self._coming = list(starts)

    def reset(self) -> Any:
        """Reset all copies; episodes under way are dropped, and the count of episodes starts again.

        Raises:
            EnvironmentFault: If a copy fails, dies, hangs or gives numbers that are not finite.
        """
        try:
            observations = self.venv.reset()
        except CopyError as error:
            raise self._failure(error, 0) from error
        self._starts = list(self.venv.starts)
        self._returns[:] = 0
        self._lengths[:] = 0
        self._numbers[:] = 0
        self.steps = 0
        self._held[:] = False
        self.finished.clear()
        self._played.clear()
        self._pass_on(begun=True)
        self._check(observations)
        self._last = observations
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Send the actions, and remember those of the episodes under way: with their seeds, they are their state.

        Raises:
            EnvironmentFault: If a copy's process has died.
        """
        if self._batched is None:
            self._played.append(np.array(actions))
            if len(self._played) > self._most_played:
                longest = int(self._lengths.max())
                del self._played[: -1 - longest]
                self._most_played = 2 * longest + _LEAST_REMEMBERED
        try:
            # A copy: the environment may write into its actions, and the caller may keep these.
            self.venv.step_async(np.array(actions))
        except CopyError as error:
            raise self._failure(error, 1) from error

    def step_wait(self) -> Any:
        """Step, check and count.

        Raises:
            EnvironmentFault: If a copy fails, dies, hangs or gives numbers that are not finite.
        """
        try:
            observations, rewards, dones, infos = self.venv.step_wait()
        except CopyError as error:
            raise self._failure(error, 1) from error
        self.steps += 1
        self._lengths += 1
        idle = self.idle
        if idle is not None:
            self._lengths[idle] = 0
        if self.venv.notes:
            self._pass_on(begun=False)
        if not self._ranges.rewards_hold(rewards):
            self._tell(self._ranges.reward_outside(rewards))
        self._returns += rewards
        if self._in_any_step or self._key is not None:
            self._look_for_success(infos, dones)
        if np.count_nonzero(dones):
            self._end(np.flatnonzero(dones).tolist(), infos)
        # Where an episode ended, this is the first of the next one.
        self._check(observations)
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
        lengths: np.ndarray = self._lengths.copy()
        return lengths

    @property
    def begins(self) -> np.ndarray:
        """At which of its steps each copy's episode under way began, shape `(num_envs,)`."""
        begins: np.ndarray = self.steps - self._lengths
        return begins

    def state_dict(self) -> dict[str, Any]:
        """Return where each copy's episode is: its start and actions so far, or the arrays of a batched environment.

        Nothing may be left in `finished`.
        """
        return {
            "numbers": self._numbers.copy(),
            "starts": [start.to_data() for start in self._starts],
            "coming": [start.to_data() for start in self._coming],
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "held": self._held.copy(),
            "steps": self.steps,
            "inside": self._actions_so_far() if self._batched is None else self._batched.state_dict(),
            "observations": self._last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[Any, list[int]]:
        """Bring each copy's episode back to where it was.

        Returns:
            The observations, and the copies that did not come back as they were: they go on from where replay led, or
            with their next episode where that one could not be played up to there.
        """
        for own, name in ((self._numbers, "numbers"), (self._returns, "returns"), (self._lengths, "lengths")):
            own[:] = state[name]
        self._held[:] = state["held"]
        self.steps = state["steps"]
        numbers = self._numbers.tolist()
        starts = [EpisodeStart.from_data(start) for start in state["starts"]]
        self.begin_with([EpisodeStart.from_data(start) for start in state["coming"]])
        if self._batched is not None:
            observations, ended = self._batched.load_state_dict(state["inside"], numbers, starts, state["observations"])
        else:
            observations, ended = self._replay(list(zip(numbers, starts, state["inside"], strict=True)))
        self._starts = list(self.venv.starts)
        self._returns[ended] = self._lengths[ended] = 0
        self._held[ended] = False
        self._numbers[ended] += 1
        self._last = observations
        return observations, sorted({*ended, *different_copies(observations, state["observations"])})

    def _actions_so_far(self) -> list[np.ndarray]:
        """Return each copy's actions since its episode began."""
        end = len(self._played)
        starts = (end - int(length) for length in self._lengths)
        return [np.array([actions[copy] for actions in self._played[start:]]) for copy, start in enumerate(starts)]

    def _replay(self, given: list[tuple[int, EpisodeStart, np.ndarray]]) -> tuple[Any, list[int]]:
        """Play episodes again; return the observations and the copies whose episode ended before its actions did."""
        assert not isinstance(self.venv, BatchedVecEnv)
        try:
            observations, whole = zip(*self.venv.replay(given), strict=True)
        except CopyError as error:
            place = f"when its episode {given[error.copy or 0][0]} was played again"
            raise EnvironmentFault(
                f"{self._spec}: copy {error.copy} {error.what}, {place}.", trace=error.trace
            ) from error
        so_far = [actions for _, _, actions in given]
        longest = max(so_far, key=len)
        played = np.zeros((len(longest), self.num_envs, *longest.shape[1:]), longest.dtype)
        for copy, actions in enumerate(so_far):
            if len(actions):
                played[len(longest) - len(actions) :, copy] = actions
        self._played = list(played)
        return stack(observations, self.observation_space), [copy for copy, kept in enumerate(whole) if not kept]

    def take(self) -> list[Episode]:
        """Return the finished episodes and forget them."""
        taken, self.finished = self.finished, []
        return taken

    def _end(self, copies: list[int], infos: list[dict[str, Any]]) -> None:
        """Count the episodes that have ended, and begin the next ones."""
        for copy in copies:
            last = infos[copy]["terminal_observation"]
            parts = last if isinstance(last, dict) else {None: last}
            alone: Any = {key: np.asarray(part)[None] for key, part in parts.items()}
            self._check(alone.get(None, alone), copy)
        for copy in copies:
            total, length = float(self._returns[copy]), int(self._lengths[copy])
            solved = self._judge(infos[copy], total, length, copy)
            if solved is None and self._key not in (None, DEFAULT_SUCCESS):
                # Whoever names a key has one that may be written only when the episode is solved.
                solved = False
            if self._held[copy] and self._in_any_step:
                solved = True
            elif self._held[copy] and not solved:
                self._note(HELD_BEFORE.format(key=self._key), f"return {total:g}", copy)
            place, level = (copy, int(self._numbers[copy])), self._starts[copy].level
            self.finished.append(Episode(*place, total, length, solved, self.steps - length, level))
        begun = self.venv.starts
        for copy in copies:
            self._starts[copy] = begun[copy]
        self._returns[copies] = self._lengths[copies] = 0
        self._held[copies] = False
        self._numbers[copies] += 1
        if self.venv.notes:
            self._pass_on(begun=True)

    def _look_for_success(self, infos: list[dict[str, Any]], dones: np.ndarray) -> None:
        """Note in which episodes that go on success has held, for those that count it at any step or to tell of it."""
        if not self._in_any_step:
            if self._batched is not None:
                self._held |= (
                    flags_in(self._batched.infos, str(self._key), self.num_envs) & (self._lengths > 0) & ~dones
                )
                return
            for copy, info in enumerate(infos):
                value = info.get(str(self._key))
                # Most environments say nothing or 'no' in most steps.
                if value is not None and value is not False and not dones[copy] and is_true(value):
                    self._held[copy] = True
            return
        for copy in np.flatnonzero(~dones & ~self._held & (self._lengths > 0)).tolist():
            info = infos[copy] if self._batched is None else info_of(self._batched.infos, copy)
            if self._judge(info, float(self._returns[copy]), int(self._lengths[copy]), copy):
                self._held[copy] = True

    def _judge(self, info: dict[str, Any], total: float, length: int, copy: int) -> bool | None:
        """Say whether an episode counts as solved."""
        try:
            return self._solved(info, total, length)
        except Exception as error:
            place = self._place(copy)
            raise EnvironmentFault(
                f"{self._spec}: whether copy {copy} succeeded cannot be told ({why_unknown(error)}), at {place}.",
                trace=traceback_of(error) if ":" in str(self._spec.success) else "",
            ) from error

    def _check(self, observations: Any, copy: int | None = None) -> None:
        """Look through the observations of all copies, or of one."""
        if not self._ranges.observations_hold(observations):
            for found in self._ranges.observations_outside(observations):
                self._tell(found if copy is None else found._replace(copy=copy))

    def _tell(self, found: Finding) -> None:
        """Stop, or warn."""
        if found.fatal:
            raise EnvironmentFault(f"{self._spec}: copy {found.copy} gave {found.what} at {self._place(found.copy)}.")
        self._note(f"gives {found.what}", found.seen, found.copy)

    def _pass_on(self, begun: bool) -> None:
        """Warn of what was noted of the copies' steps, or of their new episodes."""
        for note in self.venv.notes:
            if note.begun == begun:
                self._note(note.what, note.seen, note.copy)

    def _note(self, what: str, seen: str, copy: int) -> None:
        if what not in self._noted:
            self._noted.add(what)
            self._warn(f"{self._spec}: {what}{FIRST}{seen}, from copy {copy} at {self._place(copy)}).")

    def _failure(self, error: CopyError, step: int) -> EnvironmentFault:
        """Say where a copy failed, `step` steps after those that were counted."""
        if error.copy is None:
            return EnvironmentFault(f"{self._spec}: its batch of copies {error.what}.", trace=error.trace)
        place = self._place(error.copy, step)
        return EnvironmentFault(f"{self._spec}: copy {error.copy} {error.what}, at {place}.", trace=error.trace)

    def _place(self, copy: int, more: int = 0) -> str:
        return f"step {self._lengths[copy] + more} of its episode {self._numbers[copy]}"


def different_copies(observations: Any, others: Any) -> list[int]:
    """Return the copies whose observations are not the same."""
    if isinstance(observations, dict):
        return sorted({copy for key, part in observations.items() for copy in different_copies(part, others[key])})
    unequal: np.ndarray = (observations != others).reshape(len(observations), -1).any(axis=1)
    return [int(copy) for copy in np.flatnonzero(unequal)]
