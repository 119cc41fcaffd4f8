"""Copies of an environment in processes of their own, and what is said when one of them dies."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv

from rlstages.errors import Fault

SECONDS_TO_DIE = 5.0


class Workers(SubprocVecEnv):
    """One process per copy, from a server that imports `rlstages.environments` once for all of them.

    Args:
        makers: Make the copies, each in its own process.
    """

    def __init__(self, makers: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        multiprocessing.set_forkserver_preload(["__main__", "rlstages.environments"])
        try:
            super().__init__(makers, start_method="forkserver")
        except (EOFError, OSError) as error:
            raise self._fault() from error

    def step_wait(self) -> Any:
        """Wait for all copies.

        Raises:
            Fault: If a process has died.
        """
        try:
            return super().step_wait()
        except (EOFError, OSError) as error:
            raise self._fault() from error

    def reset(self) -> Any:
        """Reset all copies.

        Raises:
            Fault: If a process has died.
        """
        try:
            return super().reset()
        except (EOFError, OSError) as error:
            raise self._fault() from error

    def step_async(self, actions: Any) -> None:
        """Send the actions.

        Raises:
            Fault: If a process has died.
        """
        try:
            super().step_async(actions)
        except OSError as error:
            raise self._fault() from error

    def close(self) -> None:
        """End all processes, by force if one has died."""
        if all(process.is_alive() for process in self.processes):
            super().close()
            return
        for process in self.processes:
            process.terminate()
            process.join()
        self.closed = True

    def _fault(self) -> Fault:
        """Say which process died, and of what."""
        multiprocessing.connection.wait([process.sentinel for process in self.processes], SECONDS_TO_DIE)
        for copy, process in enumerate(self.processes):
            process.join(0)
            code = process.exitcode
            if code is not None:
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else "stopped with the error above"
                return Fault(
                    f"The process of copy {copy} {how}; the run goes on from its last checkpoint when resumed."
                )
        return Fault("The process of a copy no longer answers; the run goes on from its last checkpoint when resumed.")
