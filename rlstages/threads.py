"""How many CPU threads torch and NumPy's linear algebra use, set together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from rlstages.specs import Agent


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(agent: Agent) -> int:
    """Return how many threads an agent is trained with on this machine."""
    if agent.threads is not None:
        return agent.threads
    return torch.get_num_threads() if agent.policy == "CnnPolicy" else 1


@contextmanager
def limited_threads(number: int) -> Iterator[None]:
    """Use this many threads for a while.

    A pool larger than the work slows it down, by a hundred times where one of its cores is busy with something else;
    and sums split among other numbers of threads end with other last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)
