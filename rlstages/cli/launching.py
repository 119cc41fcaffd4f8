"""What the commands that make many runs share."""

from __future__ import annotations

import os

from rlstages.errors import InputError, require


def say(line: str) -> None:
    """Print a line at once, also where output is kept in a file."""
    print(line, flush=True)


def default_jobs() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_seeds(text: str) -> list[int]:
    """Read `0:5` (0 to 4), `3`, or `1,4,7`.

    Raises:
        InputError: If it is none of these.
    """
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            seeds = list(range(start, stop))
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds is {text!r}; give 0:5 for 0 to 4, or 1,4,7.") from None
    require(bool(seeds) and min(seeds) >= 0, f"--seeds {text!r} names no seed of at least 0; give 0:5 for 0 to 4.")
    return seeds
