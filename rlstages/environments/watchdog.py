"""Time limits for calls of user code in this process, which may never return.

A thread counts the time and interrupts the main thread by SIGALRM, which ends Python code, sleeps and most waits. If
that has no effect, as in a loop in C, the process is ended, and only the work since the last checkpoint is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

TICK = 0.25
SECONDS_TO_REACT = 3.0


class Overdue(Exception):
    """The current call has exceeded its time limit."""


class TimeLimit:
    """A context that the main thread must leave within some seconds; without `watching` it does nothing.

    Args:
        seconds: Before `Overdue` is raised in it.
        name: What is done there, for the message of last resort.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds, self.name = seconds, name
        # Count ticks instead of reading a clock, so that a stopped job or a sleeping laptop uses up no time.
        self.spent = 0.0
        self._outer: TimeLimit | None = None

    def __enter__(self) -> None:
        global _current
        self.spent, self._outer, _current = 0.0, _current, self

    def __exit__(self, *_: object) -> None:
        global _current
        _current = self._outer


_current: TimeLimit | None = None
_watching = False


@contextlib.contextmanager
def watching(last_words: Callable[[str], None] | None = None) -> Iterator[None]:
    """Enforce time limits in the main thread; elsewhere, and inside another such context, this does nothing.

    Args:
        last_words: Takes a sentence when the process must be ended; default writes it to standard error.
    """
    global _watching
    if _watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _interrupt)
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(done, threading.get_ident(), last_words or _say), daemon=True)
    _watching = True
    thread.start()
    try:
        yield
    finally:
        _watching = False
        done.set()
        thread.join()
        signal.signal(signal.SIGALRM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _current is not None and _current.spent > _current.seconds:
        raise Overdue


def _watch(done: threading.Event, main_thread: int, last_words: Callable[[str], None]) -> None:
    while not done.wait(TICK):
        limit = _current
        if limit is None:
            continue
        limit.spent += TICK
        if limit.spent > limit.seconds + SECONDS_TO_REACT:
            last_words(
                f"{limit.name} has not come back within {limit.seconds:g} seconds and cannot be interrupted; "
                'vectorize="subprocess" keeps it apart.'
            )
            os._exit(1)
        if limit.spent > limit.seconds:
            signal.pthread_kill(main_thread, signal.SIGALRM)


def _say(sentence: str) -> None:
    print(f"stopped: {sentence}", file=sys.stderr, flush=True)
