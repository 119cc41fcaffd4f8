"""What the commands that make many runs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlstages.errors import InputError, require, require_seed
from rlstages.experiments.jobs import Ended, Job, run_jobs

MOST_SEEDS = 10_000

Launcher = Callable[[Sequence[Job], Callable[[Ended], None]], list[Ended]]


def say(line: str) -> None:
    """Print a line at once, also where output is kept in a file."""
    print(line, flush=True)


def launcher(on: str, jobs: int | None) -> Launcher:
    """Return what runs jobs.

    Args:
        on: `"local"`, `"ray"` or `"ray=ADDRESS"`.
        jobs: How many at a time; `None` is one for each core, or what Ray has room for.

    Raises:
        InputError: If it is none of these.
    """
    kind, _, address = on.partition("=")
    if on == "local":
        from rlstages.reproducibility import processors

        return lambda work, tell: run_jobs(work, jobs or processors(), tell)
    require(kind == "ray", f"--on is {on!r}; give local, ray or ray=ADDRESS.")
    from rlstages.experiments.ray_jobs import run_jobs_on_ray

    return lambda work, tell: run_jobs_on_ray(work, jobs, tell, address or None)


def read_seeds(text: str) -> Sequence[int]:
    """Read `0:5` (0 to 4), `3`, or `1,4,7`.

    Raises:
        InputError: If it is none of these, or names seeds that `train` does not take.
    """
    seeds: Sequence[int]
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            seeds = range(start, stop)
            ends = [*seeds[:1], *seeds[-1:]]
        else:
            seeds = ends = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds is {text!r}; give 0:5 for 0 to 4, or 1,4,7.") from None
    require(bool(ends), f"--seeds {text!r} names no seed; give 0:5 for 0 to 4.")
    for seed in ends:
        require_seed(f"--seeds {text!r}: a seed", seed)
    require(len(seeds) <= MOST_SEEDS, f"--seeds {text!r} names {len(seeds):,} seeds; give at most {MOST_SEEDS:,}.")
    return seeds
