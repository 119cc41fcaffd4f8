"""The worker process of one environment, which serves the trainer's requests and ends with the trainer."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import select
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
from stable_baselines3.common.env_util import is_wrapped

from rlstages.environments.guard import CopyError, Note, guard_of, traceback_of
from rlstages.environments.seeding import EpisodeStart, SeededEpisodes
from rlstages.environments.shared_memory import take_over
from rlstages.environments.spaces import detached
from rlstages.errors import InputError, reason_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def work(pipe: Connection, maker: Callable[[], SeededEpisodes]) -> None:
    """Make an environment, and serve the trainer's requests until it closes the pipe."""
    _end_with_the_trainer()
    for number in SIGNALS:
        # Use a handler instead of SIG_IGN, which programs that an environment starts would inherit.
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        env = maker()
        pipe.send((True, (env.observation_space, env.action_space)))
    except Exception as error:
        _send_error(pipe, error)
        return
    copy = _Copy(env, pipe)
    with contextlib.suppress(EOFError, OSError):
        while True:
            command, argument = pipe.recv()
            if command == "close":
                break
            try:
                pipe.send((True, getattr(copy, command)(argument)))
            except (BrokenPipeError, ConnectionError):
                break
            except Exception as error:
                _send_error(pipe, error, plain=command == "get" and isinstance(error, AttributeError))
    env.close()


class _Copy:
    """The requests that the trainer may make to an environment."""

    def __init__(self, env: SeededEpisodes, pipe: Connection) -> None:
        self._env, self._pipe = env, pipe
        self._guard = guard_of(env)

    def share(self, place: tuple[int, int]) -> None:
        """Take the memory that observations are written into: for which environment, and of how many."""
        self._place, copies = place
        self._shared = take_over(self._pipe, self._env.observation_space, copies)

    def step(
        self, action: Any
    ) -> tuple[Any, bool, dict[str, Any], tuple[EpisodeStart, dict[str, Any]] | None, list[Note]]:
        """Step the environment. After the end of an episode, also return the next one's start and reset info."""
        observation, reward, terminated, truncated, info = self._env.step(action)
        done = terminated or truncated
        begun = None
        if done:
            # Before the reset: the environment may go on using its dictionary and its arrays.
            info = {
                **detached(info),
                "TimeLimit.truncated": truncated and not terminated,
                "terminal_observation": observation,
            }
            observation, reset_info = self._env.reset()
            begun = self._env.begun_with, reset_info
        self._shared.write(self._place, observation)
        return reward, done, info, begun, self._guard.take_notes()

    def reset(self, given: tuple[int | None, dict[str, Any]]) -> tuple[EpisodeStart, dict[str, Any], list[Note]]:
        seed, options = given
        observation, info = self._env.reset(seed=seed, **({"options": options} if options else {}))
        self._shared.write(self._place, observation)
        return self._env.begun_with, info, self._guard.take_notes()

    def call(self, given: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Any:
        method, arguments, named = given
        return self._env.get_wrapper_attr(method)(*arguments, **named)

    def get(self, name: str) -> Any:
        return self._env.get_wrapper_attr(name)

    def set(self, given: tuple[str, Any]) -> None:
        setattr(self._env, *given)

    def wrapped(self, wrapper: type[gym.Wrapper[Any, Any, Any, Any]]) -> bool:
        return bool(is_wrapped(self._env, wrapper))


def _send_error(pipe: Connection, error: Exception, plain: bool = False) -> None:
    if not plain and not isinstance(error, (CopyError, InputError)):
        error = CopyError(None, f"raised {reason_of(error)}", traceback_of(error))
    pipe.send((False, error))


def _end_with_the_trainer() -> None:
    """Let the kernel end this process when the trainer is gone, even during a step that never returns.

    The fork server's children share its parent-death signal, not the trainer's, and the server itself lives as long
    as any of them. But the trainer alone holds the other end of the pipe that this process was described through:
    when that closes, SIGIO comes, whose default is to end the process.
    """
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    sentinel: int = trainer.sentinel
    if hasattr(os, "O_ASYNC"):
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([sentinel], [], [], 0)[0]:
        os._exit(1)
