"""Environments in processes of their own: what goes wrong in one is named, and none outlives the trainer.

stable-baselines3's `SubprocVecEnv` says `EOFError` when a process dies, waits for ever when one hangs, and leaves the
environment's error to standard error. Here every answer has a deadline, an environment's error comes back with its own
traceback, and the kernel ends a worker as soon as the trainer's end of a pipe is closed, whatever the worker is doing.
gymnasium's `AsyncVectorEnv` (1.4) makes one environment more, in the trainer, does not say which environment is late or
was killed, and changes the arguments of its custom worker from release to release; so most of this code would remain.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.guard import Note
from rlstages.environments.processes import Makers, Processes
from rlstages.environments.seeding import OWN_START, EpisodeStart


class Workers(VecEnv):
    """One process per environment, from a server that imports `rlstages.environments` once for all of them.

    Args:
        makers: Make the environments, each in its own process.
        timeout: Seconds that an environment may take to be made, to reset, to step, or to answer a call.

    Attributes:
        notes: What was doubtful in the environments' last step or reset.
        starts: Start of each environment's current episode.

    Raises:
        InputError: If an environment cannot be made.
        CopyError: If a process dies or does not answer in time.
    """

    def __init__(self, makers: Makers, timeout: float) -> None:
        self.notes: list[Note] = []
        self.starts: list[EpisodeStart] = [OWN_START] * len(makers)
        self._longest_prefix = 0
        self._workers = Processes(makers, timeout)
        self.processes = self._workers.processes
        try:
            observation_space, action_space = self._workers.gather(range(len(makers)))[0]
            self._shared = self._workers.share(observation_space)
        except BaseException:
            self.close()
            raise
        super().__init__(len(makers), observation_space, action_space)

    def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]], most_calls: int = 1) -> list[Any]:
        """Call a method of every environment at the same time, each with arguments of its own.

        Args:
            method: Its name; the outermost wrapper that has it is called.
            arguments: One tuple of positional arguments per environment.
            most_calls: Number of resets and steps per environment, by which the time limit is multiplied.

        Returns:
            What each environment returned, in their order.
        """
        self._workers.send(range(self.num_envs), "call", [(method, given, {}) for given in arguments])
        return self._workers.gather(range(self.num_envs), most_calls)

    def begin_with(self, starts: Sequence[EpisodeStart]) -> None:
        """Let the coming episodes of each environment start in the way given for it."""
        self.call_each("begin_with", [(start,) for start in starts])
        self._longest_prefix = max(len(start.prefix) for start in starts)

    def replay(self, given: Sequence[tuple[int, EpisodeStart, np.ndarray]]) -> list[tuple[Any, bool]]:
        """Have each environment play an episode again; see `SeededEpisodes.replay`."""
        most_calls = max(2 + len(start.prefix) + len(actions) for _, start, actions in given) + self._longest_prefix
        answers = self.call_each("replay", given, most_calls)
        self.starts = self.get_attr("begun_with")
        return answers

    def reset(self) -> Any:
        """Reset all environments, with the seeds and options that `seed` and `set_options` have set."""
        self._workers.send(range(self.num_envs), "reset", list(zip(self._seeds, self._options, strict=True)))
        answers = self._workers.gather(range(self.num_envs), 1 + self._longest_prefix)
        self._reset_seeds()
        self._reset_options()
        starts, infos, notes = zip(*answers, strict=True)
        self.starts, self.reset_infos = list(starts), list(infos)
        self.notes = list(chain.from_iterable(notes))
        return self._shared.read()

    def step_async(self, actions: np.ndarray) -> None:
        """Send each environment its action."""
        self._workers.send(range(self.num_envs), "step", list(actions))

    def step_wait(self) -> Any:
        """Wait for all environments; rewards are float32, as those of environments in this process are."""
        answers = self._workers.gather(range(self.num_envs), 1 + self._longest_prefix)
        rewards, dones, infos, begun, notes = zip(*answers, strict=True)
        self.reset_infos = [{} for _ in begun]
        for copy, new in enumerate(begun):
            if new is not None:
                self.starts[copy], self.reset_infos[copy] = new
        self.notes = list(chain.from_iterable(notes))
        return self._shared.read(), np.array(rewards, np.float32), np.array(dones), list(infos)

    def close(self) -> None:
        """Let the environments close and end their processes, by force where that takes more than two seconds."""
        self._workers.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of each environment."""
        copies = list(self._get_indices(indices))
        return self._workers.ask(copies, "get", [attr_name] * len(copies))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of each environment."""
        copies = list(self._get_indices(indices))
        self._workers.ask(copies, "set", [(attr_name, value)] * len(copies))

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of each environment with the same arguments; `call_each` takes different ones."""
        copies = list(self._get_indices(indices))
        return self._workers.ask(copies, "call", [(method_name, method_args, method_kwargs)] * len(copies))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Say of each environment whether it is wrapped in a class."""
        copies = list(self._get_indices(indices))
        return self._workers.ask(copies, "wrapped", [wrapper_class] * len(copies))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each environment, or `None` where it makes none."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self.env_method("render")
