"""One process for each environment: how processes are started, asked, waited for and ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym

from rlstages.environments.guard import CopyError, late
from rlstages.environments.seeding import SeededEpisodes
from rlstages.environments.shared_memory import SharedObservations
from rlstages.environments.subprocess_worker import SIGNALS, work
from rlstages.errors import Fault, reason_of, signal_name

SECONDS_TO_END, SECONDS_TO_BE_REAPED = 2.0, 4.0
FILES_PER_COPY, FILES_BESIDES = 3, 32

Makers = Sequence[Callable[[], SeededEpisodes]]


class Processes:
    """The processes of environments, from a server that imports `rlstages.environments` once for all of them.

    Args:
        makers: Make the environments, each in its own process; `gather` returns when they are made.
        timeout: Seconds that an environment may take to be made, to reset, to step, or to answer a call.

    Attributes:
        processes: In the order of the makers.

    Raises:
        Fault: If the processes cannot be started.
    """

    def __init__(self, makers: Makers, timeout: float) -> None:
        self.processes: list[BaseProcess] = []
        self._timeout = timeout
        self._pipes: list[Connection] = []
        self._pollers: list[select.poll] = []
        self._asked = "being made"
        self._busy: set[int] = set()
        self._end = util.Finalize(self, _end, (self._pipes, self.processes, self._busy), exitpriority=10)
        try:
            _start(makers, self._pipes, self.processes)
        except BaseException:
            self.close()
            raise
        for pipe in self._pipes:
            self._pollers.append(select.poll())
            self._pollers[-1].register(pipe.fileno(), select.POLLIN)

    def close(self) -> None:
        """Let the environments close and end their processes, by force where that takes more than two seconds."""
        self._end()

    def ask(self, copies: Sequence[int], command: str, arguments: Sequence[Any]) -> list[Any]:
        """Send some environments a command, and return their answers."""
        self.send(copies, command, arguments)
        return self.gather(copies)

    def send(self, copies: Sequence[int], command: str, arguments: Sequence[Any]) -> None:
        """Send some environments a command, each with an argument of its own.

        Raises:
            CopyError: If a process has died.
        """
        self._asked = f"{command}()"
        for copy, argument in zip(copies, arguments, strict=True):
            self._busy.add(copy)
            try:
                self._pipes[copy].send((command, argument))
            except OSError as error:
                raise self._death(copy) from error

    def gather(self, copies: Sequence[int], most_calls: int = 1) -> list[Any]:
        """Take the answers of some environments, which work at the same time, until their common deadline.

        Raises:
            CopyError: If a process dies or does not answer in time.
        """
        answers: list[Any] = []
        failures: list[Exception] = []
        left = self._timeout * most_calls
        for copy in copies:
            answered, left = self._wait(copy, left)
            try:
                done, answer = self._receive(copy) if answered else (False, self._late(copy))
            except CopyError as error:
                done, answer = False, error
            (answers if done else failures).append(answer)
        # All have been heard, so that the next question gets no old answer.
        if failures:
            raise failures[0]
        return answers

    def share(self, space: gym.Space[Any]) -> SharedObservations:
        """Give all environments the memory that they write their observations into."""
        copies = range(len(self.processes))
        shared = SharedObservations(space, len(copies))
        try:
            self.send(copies, "share", [(copy, len(copies)) for copy in copies])
            for copy in copies:
                try:
                    shared.hand_over(self._pipes[copy], self.processes[copy].pid)
                except OSError as error:
                    raise self._death(copy) from error
            self.gather(copies)
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
        return CopyError(copy, late(self._timeout, self._asked))

    def _death(self, copy: int) -> CopyError:
        """Say of what a process died."""
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
    """Start a process for each maker; both lists grow with them."""
    _require_files(len(makers))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "rlstages.environments.make"])
    # The server and the workers' first moments must not be ended by what is meant for the trainer.
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
    """End all processes, those that are still at work at once; the others close their environment first."""
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
