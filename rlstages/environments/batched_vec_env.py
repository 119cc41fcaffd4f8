"""Natively batched environments behind stable-baselines3's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.autoreset import Autoreset, autoreset_of
from rlstages.environments.batched_env import info_of, refuse_options
from rlstages.environments.guard import CopyError, Note, late, traceback_of
from rlstages.environments.seeding import OWN_START, EpisodeSeeds, EpisodeStart
from rlstages.environments.snapshots import restore_snapshot, snapshot
from rlstages.environments.spaces import detached
from rlstages.environments.watchdog import Overdue, TimeLimit
from rlstages.errors import reason_of, require
from rlstages.specs.plain import thaw

NOTHING: Mapping[str, Any] = MappingProxyType({})


class BatchedVecEnv(VecEnv):
    """A natively batched environment behind stable-baselines3's interface.

    Environments begin their next episodes in one of two ways (https://farama.org/Vector-Autoreset-Mode). A batch that
    never resets by itself is told which environments to reset, and with which seeds, as soon as their episodes have
    ended. One that resets by itself does it in the step after: what that step returns for these environments is no
    transition, and `idle` tells which they are.

    Args:
        batched: A `gymnasium.vector.VectorEnv`. What a resumed run needs to find its environments as they were is what
            its `state` returns and `restore` takes, as of `rlstages.BatchedEnv`, or else a snapshot.
        seeds: One source of episode seeds per environment.
        timeout: Seconds that a reset or a step may take.

    Attributes:
        infos: What the last step told of all environments: arrays by key, as gymnasium's vector environments give them.
            They are borrowed from the batch, which may write into them in its next step.
        idle: Mask of environments whose last step was only a reset, shape `(num_envs,)`, or `None` if all have
            stepped.
        notes: Always empty; see `InProcess`.
        starts: How each environment's episode under way started, where the batch does not reset itself.
        resets_itself: Whether the batch is of the second kind.
    """

    def __init__(self, batched: Any, seeds: list[EpisodeSeeds], timeout: float = 300.0) -> None:
        self.batched = batched
        self.infos: Mapping[str, Any] = NOTHING
        self.idle: np.ndarray | None = None
        self.notes: list[Note] = []
        self.resets_itself = autoreset_of(batched) is Autoreset.NEXT_STEP
        self._ended: np.ndarray | None = None
        self._episode_seeds = seeds
        self.starts = [OWN_START] * len(seeds)
        self._coming: list[EpisodeStart] = self.starts.copy()
        self._limit = TimeLimit(timeout, f"A step or reset of {batched}")
        self._actions = np.zeros(0)
        self.render_mode = getattr(batched, "render_mode", None)
        super().__init__(batched.num_envs, batched.single_observation_space, batched.single_action_space)
        self._no_infos: list[Any] = [NOTHING] * self.num_envs
        self.reset_infos = self._no_infos.copy()

    def begin_with(self, starts: Sequence[EpisodeStart]) -> None:
        """Let the coming episodes of each environment start in the way given for it.

        Raises:
            InputError: If the batch resets itself, takes no options that are given, or is given a prefix.
        """
        apart = 'give vectorize="in-process" or "subprocess".'
        own = all(start == OWN_START for start in starts)
        sentence = f"{self.batched} starts its episodes by itself; {apart}"
        require(own or not self.resets_itself, sentence, "setting-conflict", self.batched, "vectorize")
        together = f"The copies of {self.batched} step together, so no episode can begin with a prefix of actions"
        sentence = f"{together}; {apart}"
        require(not any(start.prefix for start in starts), sentence, "setting-conflict", self.batched, "vectorize")
        refuse_options(self.batched, [start.options for start in starts])
        self._coming = list(starts)

    def reset(self) -> Any:
        """Start an episode in each environment, with the seeds and options that `seed` and `set_options` have set."""
        refuse_options(self.batched, self._options)
        given = zip(self._episode_seeds, self._coming, self._seeds, self._options, strict=True)
        self.starts = [
            seeds.start(EpisodeStart(coming.seed, options) if options else coming, seed)
            for seeds, coming, seed, options in given
        ]
        self._reset_seeds()
        self._reset_options()
        self.idle = self._ended = None
        seeds = [start.seed for start in self.starts]
        # What resets itself takes one seed for all, if only because its generator is one for all.
        observations = self._begin(seeds[0] if self.resets_itself else seeds, {})
        return _arrays(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Step all environments, and start new episodes where one ended."""
        observations, rewards, terminated, truncated, more = self._guard("step", self.batched.step, self._actions)
        self.infos = more
        dones = np.asarray(terminated | truncated)
        rewards = np.array(rewards, np.float32)
        infos = self._no_infos.copy()
        self.idle, self._ended = self._ended, None
        if self.idle is not None:
            dones = dones & ~self.idle
            rewards[self.idle] = 0.0
        if np.count_nonzero(dones):
            seeds: list[int | None] = [None] * self.num_envs
            for copy in np.flatnonzero(dones).tolist():
                infos[copy] = {
                    **detached(info_of(more, copy)),
                    "terminal_observation": row_of(observations, copy),
                    "TimeLimit.truncated": bool(truncated[copy] and not terminated[copy]),
                }
                start = self.starts[copy] = self._episode_seeds[copy].start(self._coming[copy])
                seeds[copy] = start.seed
            if self.resets_itself:
                # The caller may write into what it is given.
                self._ended = dones.copy()
            else:
                observations = self._begin(seeds, {"reset_mask": dones})
        return _arrays(observations), rewards, dones, infos

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of all environments, or `None` if the environment does not give it away."""
        if callable(getattr(self.batched, "restore", None)):
            return dict(detached(self.batched.state()))
        inside = snapshot(self.batched)
        ended = np.zeros(self.num_envs, bool) if self._ended is None else self._ended
        return None if inside is None else {"inside": inside, "ended": ended}

    def load_state_dict(
        self, state: Mapping[str, Any] | None, numbers: Sequence[int], starts: Sequence[EpisodeStart], seen: Any
    ) -> tuple[Any, list[int]]:
        """Put all environments back; without a state, each begins its next episode.

        Args:
            state: Result of `state_dict`.
            numbers: Numbers of the episode that each environment is in.
            starts: Starts of these episodes.
            seen: What the environments' observations were.

        Returns:
            Their observations, and the environments that have begun another episode.
        """
        for seeds, number in zip(self._episode_seeds, numbers, strict=True):
            seeds.number = number + 1
        if state is None:
            return self.reset(), list(range(self.num_envs))
        self.starts = list(starts)
        if callable(getattr(self.batched, "restore", None)):
            return _arrays(self.batched.restore(state)), []
        self._guard("reset", self.batched.reset, seed=0)
        restore_snapshot(self.batched, state["inside"])
        ended = np.array(state["ended"], bool)
        self._ended = ended if ended.any() else None
        return seen, []

    def close(self) -> None:
        """Close the environment."""
        self.batched.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, once per environment."""
        return [getattr(self.batched, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the environments share their attributes."""
        raise NotImplementedError("the copies of a batched environment share their attributes")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: the environments have no methods of their own."""
        raise NotImplementedError("the copies of a batched environment have no methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return that no environment is wrapped."""
        return [False] * len(list(self._get_indices(indices)))

    def _begin(self, seeds: Any, options: dict[str, Any]) -> Any:
        """Reset environments; return the observations of all."""
        if any(start.options for start in self.starts):
            options = {**options, "copy_options": [thaw(start.options) for start in self.starts]}
        named = {"options": options} if options else {}
        return self._guard("reset", self.batched.reset, seed=seeds, **named)[0]

    def _guard(self, call: str, work: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            with self._limit:
                return work(*given, **named)
        except Overdue as error:
            raise CopyError(None, late(self._limit.seconds, f"{call}()"), traceback_of(error)) from error
        except Exception as error:
            raise CopyError(None, f"raised {reason_of(error)} in {call}()", traceback_of(error)) from error


def _arrays(observations: Any) -> Any:
    """Return observations in arrays of their own: the batch may write its next ones into those that it gave."""
    if isinstance(observations, dict):
        return {key: np.array(part) for key, part in observations.items()}
    return np.array(observations)


def row_of(observations: Any, copy: int) -> Any:
    """Return one environment's observation, on its own."""
    if isinstance(observations, dict):
        return {key: part[copy].copy() for key, part in observations.items()}
    return np.array(observations[copy])
