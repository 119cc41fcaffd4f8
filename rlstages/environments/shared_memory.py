"""Observations of environments in processes of their own, in memory that these share with the trainer."""

from __future__ import annotations

import mmap
import os
import tempfile
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

NAME = "rlstages-observations"
"""What the system's own tools show the memory as."""

_LINE = 64
"""Rows of two copies never share a cache line of this many bytes, which two processors would take from each other."""


class SharedObservations:
    """One observation of each environment; its own process writes it, and the trainer reads them all.

    The memory has no name: the system frees it when the last process that has it is gone, however that went.

    Args:
        space: Space of one observation: a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict of these.
        copies: Number of environments.
        handle: Handle of memory that another process has made; `None` makes it here.
    """

    def __init__(self, space: gym.Space[Any], copies: int, handle: int | None = None) -> None:
        self._is_dict = isinstance(space, spaces.Dict)
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        sizes = {key: _bytes_of(part) for key, part in parts.items()}
        self.handle = _nameless(copies * sum(sizes.values())) if handle is None else handle
        memory = mmap.mmap(self.handle, copies * sum(sizes.values()))
        self._rows: dict[str, np.ndarray] = {}
        start = 0
        for key, part in parts.items():
            assert part.shape is not None
            step = (sizes[key], *np.empty(part.shape, part.dtype).strides)
            self._rows[key] = np.ndarray((copies, *part.shape), part.dtype, memory, start, step)
            start += copies * sizes[key]

    def write(self, copy: int, observation: Any) -> None:
        """Write one environment's observation."""
        for key, rows in self._rows.items():
            rows[copy] = observation[key] if self._is_dict else observation

    def read(self) -> Any:
        """Return what all environments have written: arrays of the caller's own."""
        read = {key: rows.copy() for key, rows in self._rows.items()}
        return read if self._is_dict else read[""]

    def hand_over(self, pipe: Connection, process: int | None) -> None:
        """Give the memory to the process at the other end of a pipe, which calls `take_over`."""
        reduction.send_handle(pipe, self.handle, process)

    def close_handle(self) -> None:
        """Give up the handle; the memory stays."""
        os.close(self.handle)


def take_over(pipe: Connection, space: gym.Space[Any], copies: int) -> SharedObservations:
    """Return the memory that the process at the other end of a pipe has handed over."""
    shared = SharedObservations(space, copies, reduction.recv_handle(pipe))
    shared.close_handle()
    return shared


def _bytes_of(space: gym.Space[Any]) -> int:
    """Return how much memory a row takes."""
    size = np.empty(space.shape or (), space.dtype).nbytes
    return -(-size // _LINE) * _LINE


def _nameless(size: int) -> int:
    """Return the handle of new memory, or of a file that has been deleted already where there is no such memory."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create(NAME)
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, max(size, 1))
    return handle
