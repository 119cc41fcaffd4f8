"""Copies of an environment in processes of their own: what goes wrong in one is named, and none outlives the trainer.

stable-baselines3's `SubprocVecEnv` says `EOFError` when a process dies, waits for ever when one hangs, and leaves the
environment's error to standard error. Here every answer has a deadline, an environment's error comes back with its own
traceback, and the kernel ends a worker as soon as the trainer's end of a pipe is closed, whatever the worker is doing.
gymnasium's `AsyncVectorEnv` (1.4) makes a copy in the trainer too, does not say which environment is late or was
killed, and changes what its custom worker is given from release to release; so most of this would stand around it as
well.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Sequence
from itertools import chain
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.guard import CopyError, Note, late
from rlstages.environments.seeding import OWN_START, EpisodeStart, SeededEpisodes
from rlstages.environments.shared_memory import SharedObservations
from rlstages.environments.subprocess_worker import SIGNALS, work
from rlstages.errors import Fault, reason_of, signal_name

SECONDS_TO_END, SECONDS_TO_BE_REAPED = 2.0, 4.0
FILES_PER_COPY, FILES_BESIDES = 3, 32

Makers = Sequence[Callable[[], SeededEpisodes]]


class Workers(VecEnv):
    """One process per environment, from a server that imports `rlstages.environments` once for all of them.

    Args:
        makers: Make the environments, each in its own process.
        timeout: Seconds that a copy may take to be made, to reset, to step, or to answer a call.

    Attributes:
        notes: What was doubtful in the environments' last step or reset.
        starts: Start of each environment's current episode.

    Raises:
        InputError: If an environment cannot be made.
        CopyError: If a process dies or does not answer in time.
    """

    def __init__(self, makers: Makers, timeout: float) -> None:
        self.timeout = timeout
        self.notes: list[Note] = []
        self.starts: list[EpisodeStart] = [OWN_START] * len(makers)
        self._longest_prefix = 0
        self.processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._pollers: list[select.poll] = []
        self._asked = "being made"
        self._busy: set[int] = set()
        self._end = util.Finalize(self, _end, (self._pipes, self.processes, self._busy), exitpriority=10)
        try:
            _start(makers, self._pipes, self.processes)
            for pipe in self._pipes:
                self._pollers.append(select.poll())
                self._pollers[-1].register(pipe.fileno(), select.POLLIN)
            observation_space, action_space = self._gather(range(len(makers)))[0]
            self._shared = self._share(observation_space)
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
        self._send(range(self.num_envs), "call", [(method, given, {}) for given in arguments])
        return self._gather(range(self.num_envs), most_calls)

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
        self._send(range(self.num_envs), "reset", list(zip(self._seeds, self._options, strict=True)))
        answers = self._gather(range(self.num_envs), 1 + self._longest_prefix)
        self._reset_seeds()
        self._reset_options()
        starts, infos, notes = zip(*answers, strict=True)
        self.starts, self.reset_infos = list(starts), list(infos)
        self.notes = list(chain.from_iterable(notes))
        return self._shared.read()

    def step_async(self, actions: np.ndarray) -> None:
        """Send each environment its action."""
        self._send(range(self.num_envs), "step", list(actions))

    def step_wait(self) -> Any:
        """Wait for all environments; rewards are float32, as those of environments in this process are."""
        answers = self._gather(range(self.num_envs), 1 + self._longest_prefix)
        rewards, dones, infos, begun, notes = zip(*answers, strict=True)
        self.reset_infos = [{} for _ in begun]
        for copy, new in enumerate(begun):
            if new is not None:
                self.starts[copy], self.reset_infos[copy] = new
        self.notes = list(chain.from_iterable(notes))
        return self._shared.read(), np.array(rewards, np.float32), np.array(dones), list(infos)

    def close(self) -> None:
        """Let the environments close and end their processes, by force where that takes more than two seconds."""
        self._end()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of each environment."""
        copies = list(self._get_indices(indices))
        return self._ask(copies, "get", [attr_name] * len(copies))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of each environment."""
        copies = list(self._get_indices(indices))
        self._ask(copies, "set", [(attr_name, value)] * len(copies))

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of each environment with the same arguments; `call_each` takes different ones."""
        copies = list(self._get_indices(indices))
        return self._ask(copies, "call", [(method_name, method_args, method_kwargs)] * len(copies))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Say of each environment whether it is wrapped in a class."""
        copies = list(self._get_indices(indices))
        return self._ask(copies, "wrapped", [wrapper_class] * len(copies))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each environment, or `None` where it makes none."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self.env_method("render")

    # --- talking to the processes --------------------------------------------------------------------------------

    def _ask(self, copies: Sequence[int], command: str, arguments: Sequence[Any]) -> list[Any]:
        self._send(copies, command, arguments)
        return self._gather(copies)

    def _send(self, copies: Sequence[int], command: str, arguments: Sequence[Any]) -> None:
        self._asked = f"{command}()"
        for copy, argument in zip(copies, arguments, strict=True):
            self._busy.add(copy)
            try:
                self._pipes[copy].send((command, argument))
            except OSError as error:
                raise self._death(copy) from error

    def _gather(self, copies: Sequence[int], most_calls: int = 1) -> list[Any]:
        """Take the answers of some copies, which work at the same time, until their common deadline."""
        answers: list[Any] = []
        failures: list[Exception] = []
        left = self.timeout * most_calls
        for copy in copies:
            answered, left = self._wait(copy, left)
            try:
                done, answer = self._receive(copy) if answered else (False, self._late(copy))
            except CopyError as error:
                done, answer = False, error
            (answers if done else failures).append(answer)
        # Read all answers, so that the next request does not get an old one.
        if failures:
            raise failures[0]
        return answers

    def _share(self, space: gym.Space[Any]) -> SharedObservations:
        """Give all environments the memory that they write their observations into."""
        copies = range(len(self.processes))
        shared = SharedObservations(space, len(copies))
        try:
            self._send(copies, "share", [(copy, len(copies)) for copy in copies])
            for copy in copies:
                try:
                    shared.hand_over(self._pipes[copy], self.processes[copy].pid)
                except OSError as error:
                    raise self._death(copy) from error
            self._gather(copies)
        finally:
            shared.close_handle()
        return shared

    def _wait(self, copy: int, left: float) -> tuple[bool, float]:
        """Wait until an environment has something to say; return whether it has, and the seconds that are left.

        Time in which the trainer itself stood still (a stopped job, a sleeping laptop) counts for a second at most.
        """
        while True:
            started, share = time.monotonic(), min(max(left, 0.0), 1.0)
            answered = bool(self._pollers[copy].poll(1000 * share))
            left -= min(time.monotonic() - started, 1.0)
            if answered or left <= 0:
                return answered, left

    def _receive(self, copy: int) -> tuple[bool, Any]:
        self._busy.discard(copy)
        try:
            done, answer = self._pipes[copy].recv()
        except (EOFError, OSError) as error:
            raise self._death(copy) from error
        if isinstance(answer, CopyError):
            answer.copy = copy
        return done, answer

    def _late(self, copy: int) -> CopyError:
        self.processes[copy].kill()
        return CopyError(copy, late(self.timeout, self._asked))

    def _death(self, copy: int) -> CopyError:
        """Return the error for a process that died."""
        self.processes[copy].join(SECONDS_TO_BE_REAPED)
        code = self.processes[copy].exitcode
        if code is None:
            how = "no longer answers: it has closed its connection"
        elif code >= 0:
            how = f"ended its own process, with exit code {code}"
        else:
            how = f"was ended by {signal_name(-code)}"
            how += ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return CopyError(copy, how)


def _start(makers: Makers, pipes: list[Connection], processes: list[BaseProcess]) -> None:
    """Start a process for each maker, and append pipes and processes to the lists."""
    _require_files(len(makers))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "rlstages.environments.make"])
    # Signals for the trainer must not end the server, or workers that have just started.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
        for maker in makers:
            ours, theirs = context.Pipe()
            pipes.append(ours)
            try:
                process = context.Process(target=work, args=(theirs, maker), daemon=True)
                process.start()
            finally:
                theirs.close()
            processes.append(process)
    except (EOFError, OSError) as error:
        sentence = (
            f"{len(makers)} processes for the copies of an environment cannot be started: {reason_of(error)}; "
            "see whether the system allows that many, or use fewer copies (n_envs)."
        )
        raise Fault(sentence, "resources-short", name="n_envs") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _require_files(copies: int) -> None:
    """Raise the limit on open files if necessary, because the server would die with a traceback of its own."""
    needed = len(os.listdir("/dev/fd")) + FILES_PER_COPY * copies + FILES_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        sentence = (
            f"{copies} processes for the copies of an environment need {needed} open files, and {hard} are allowed; "
            "raise the limit (ulimit -n), or use fewer copies (n_envs)."
        )
        raise Fault(sentence, "resources-short", name="n_envs")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _end(pipes: Sequence[Connection], processes: Sequence[BaseProcess], busy: set[int]) -> None:
    """End all processes: busy ones at once, the others after they have closed their environment."""
    try:
        for copy in busy:
            processes[copy].kill()
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(("close", None))
        deadline = time.monotonic() + SECONDS_TO_END
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        # Whatever interrupts this: Python's own end would wait for ever for processes that ignore SIGTERM.
        for process in processes:
            if process.is_alive():
                process.kill()
        for pipe in pipes:
            pipe.close()
    for process in processes:
        process.join()
