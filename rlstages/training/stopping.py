"""Stopping a run from outside, and the messages when it stops by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rlstages.errors import Fault, InputError
from rlstages.storage.checkpoints import reason
from rlstages.storage.record import shell_path


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Turn Ctrl-C, SIGTERM or a closed terminal into a request to finish the step and save.

    A second Ctrl-C stops at once. A program that was told to ignore the closing of its terminal (nohup) goes on.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def fault_of(error: BaseException, run: Path) -> Fault | InputError | None:
    """Return what a person should read of an error that stopped a run; `None` where it is a mistake of ours.

    Args:
        error: What was raised.
        run: Run's directory.
    """
    if isinstance(error, (Fault, InputError)):
        return error
    if isinstance(error, OSError):
        place = error.filename if isinstance(error.filename, str) else run
        return Fault(f"{place} cannot be written or read: {reason(error)}.", "file-unusable", place)
    if isinstance(error, MemoryError):
        return Fault(
            "Memory ran out; use fewer copies (n_envs), shorter rollouts (n_steps) or a smaller network.",
            "resources-short",
        )
    if isinstance(error, ValueError) and "Expected parameter" in str(error):
        return Fault(
            "The policy's outputs are not finite, though its weights are; lower the learning rate, scale the "
            "observations, or set normalize_observations=True.",
            "loss-not-finite",
        )
    return None


def add_place(error: Fault | InputError, step: int, run: Path, begun: bool = True) -> None:
    """Add to an error's message the step from which the run can be resumed.

    Args:
        error: What stopped it. What a person has to mend would only fail again as it is.
        step: Environment step of the last checkpoint.
        run: Run's directory.
        begun: Whether there is a checkpoint after the first one, which holds an untrained policy.
    """
    place = f"The last checkpoint is of step {step:,}; 'rlstages resume {shell_path(run)}' goes on from there."
    if isinstance(error, InputError):
        changed = "(with --force if a file that it names was changed)"
        place = f"{place[:-1]} once that is mended {changed}." if begun else "Mend that, and train with another --out."
    error.args = (f"{error} {place}", *error.args[1:])
