"""What decides the last bits of a run: random generators, the number of threads, and who may use them when.

Policies are made with, and some draw their actions from, the generators that Python, NumPy and torch have for the whole
process. Two trainings at once in threads would take each other's numbers, and neither could be repeated; so they take
turns, and leave the generators as they found them.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from rlstages.errors import require
from rlstages.specs.agent import Agent

_warn = logging.getLogger(__name__).warning


def random_state() -> dict[str, Any]:
    """Return where the generators are, as arrays and JSON values."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": {"version": version, "words": np.array(words, dtype=np.int64), "gauss": gauss},
        "numpy": {**numpy_state["state"], "has_gauss": numpy_state["has_gauss"], "gauss": numpy_state["gauss"]},
        "torch": torch.get_rng_state().numpy().copy(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators where `random_state` found them."""
    python, legacy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(("MT19937", legacy["key"], legacy["pos"], legacy["has_gauss"], legacy["gauss"]))
    torch.set_rng_state(torch.as_tensor(np.array(state["torch"])))


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the generators back afterwards.

    stable-baselines3 seeds them whenever it makes or loads a model, and an environment may draw from them when it is
    made, which happens once more in a run that is resumed.
    """
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


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


class _Turn:
    """Whose turn it is.

    Attributes:
        lock: Held for as long as a turn lasts.
        thread: Thread that has it, or `None`.
        name: Name of what it does.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: int | None = None
        self.name = ""


_turn = _Turn()


@contextmanager
def one_at_a_time(name: str, *, inside: bool = True) -> Iterator[None]:
    """Wait until no other thread of this process trains, plays or makes a policy; afterwards, put back the generators.

    It decorates a function as well.

    Args:
        name: Name of what is to be done, as a person calls it.
        inside: Whether it may be done by what is called during a turn, such as an expert.

    Raises:
        InputError: If it is done during a turn of the same thread and may not be.
    """
    turn = _turn
    if turn.thread == threading.get_ident():
        sentence = (
            f"{name} was called by something that {turn.name} runs, such as an environment, an expert or a tracker; "
            "a run in the midst of another would take its random numbers, so start it in a process of its own."
        )
        require(inside, sentence, "call-misplaced", name=name)
        with _generators_kept():
            yield
        return
    if not turn.lock.acquire(blocking=False):
        _warn(
            f"{name} waits for {turn.name} in another thread: in one process they would take each other's random "
            "numbers. Processes of their own, such as those of 'rlstages sweep', run at the same time."
        )
        turn.lock.acquire()
    turn.thread, turn.name = threading.get_ident(), name
    try:
        with _generators_kept():
            yield
    finally:
        turn.thread = None
        turn.lock.release()


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Put back all global generators, a GPU's too, and what stable-baselines3 sets of cuDNN when it seeds them."""
    cuda: Any = torch.cuda
    cudnn = torch.backends.cudnn
    used, seed = cuda.is_initialized(), torch.initial_seed()
    states = cuda.get_rng_state_all() if used else []
    exact, tries = cudnn.deterministic, cudnn.benchmark
    try:
        with random_state_kept():
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = exact, tries
        if used:
            cuda.set_rng_state_all(states)
        elif cuda.is_initialized():
            # They came to be meanwhile; before, they would have begun with the seed that torch had.
            cuda.manual_seed_all(seed)


def _begin_anew() -> None:
    """Have nobody's turn in a child of this process: the thread that had it is not there."""
    global _turn
    _turn = _Turn()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
