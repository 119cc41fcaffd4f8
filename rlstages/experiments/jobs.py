"""Running many runs at a time, each as a plain command in its own process."""

from __future__ import annotations

import ctypes
import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlstages.errors import require, signal_name

LAUNCHER = "RLSTAGES_LAUNCHER"
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """The job of one run.

    Attributes:
        name: For a person.
        arguments: Arguments of the `rlstages` command, which continues its work when it is run again.
        log: File that takes what it prints.
        completed: Exit codes with which it has done its work.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    completed: tuple[int, ...] = (0,)

    @property
    def command(self) -> list[str]:
        """The command line, for this Python interpreter."""
        return [sys.executable, "-m", "rlstages", *self.arguments]

    def __str__(self) -> str:
        return shlex.join(["rlstages", *self.arguments])


@dataclass(frozen=True)
class Ended:
    """The end of a job.

    Attributes:
        job: Job that has ended.
        code: Its exit code; minus the number of the signal that ended it.
        seconds: Duration in seconds.
        lost: Why nothing is known of its end, where that is so.
    """

    job: Job
    code: int
    seconds: float
    lost: str | None = None

    @property
    def failure(self) -> str | None:
        """The reason of its failure in one line, or `None` if it succeeded."""
        if self.code in self.job.completed:
            return None
        if self.lost is not None:
            return self.lost
        if self.code < 0:
            return f"ended by {signal_name(-self.code)}"
        lines = self.job.log.read_text(errors="replace").split("\n") if self.job.log.is_file() else []
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"exit code {self.code}"


Launcher = Callable[[Sequence[Job], Callable[[Ended], None]], list[Ended]]
"""A function that runs jobs, passes each end to a function, and returns all ends."""


def launcher_on(on: str, at_once: int | None) -> Launcher:
    """Return the function that runs jobs.

    Args:
        on: `"local"`, `"ray"` or `"ray=ADDRESS"`.
        at_once: Number of simultaneous jobs. `None` means one per core, or as many as Ray has room for.

    Raises:
        InputError: If `on` is none of these.
    """
    kind, _, address = on.partition("=")
    if on == "local":
        from rlstages.reproducibility import processors

        return lambda work, tell: run_jobs(work, at_once or processors(), tell)
    require(kind == "ray", f"--on is {on!r}; give local, ray or ray=ADDRESS.", "option-invalid", name="--on", value=on)
    from rlstages.experiments.ray_jobs import run_jobs_on_ray

    return lambda work, tell: run_jobs_on_ray(work, at_once, tell, address or None)


def printer(console: bool) -> Callable[[str], None]:
    """Return what takes sentences for the user: they are printed at once, also into a file, or dropped."""
    return (lambda line: print(line, flush=True)) if console else (lambda line: None)


def teller(
    count: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[Ended], None]:
    """Return what tells a person of each of `count` jobs, as it ends, and how long the others take at this pace."""
    numbers, started = itertools.count(1), clock()

    def tell(ended: Ended) -> None:
        how = f"failed: {ended.failure}" if ended.failure else f"done in {ended.seconds:.0f} s"
        number = next(numbers)
        left = (clock() - started) * (count - number) / number / 60
        pace = f"; about {left:.0f} min left" if left >= 1 else ""
        say(f"  {number} of {count}  {ended.job.name}: {how}{pace}")

    return tell


def run_jobs(jobs: Sequence[Job], at_once: int, tell: Callable[[Ended], None]) -> list[Ended]:
    """Run jobs as processes of this machine, one thread each.

    When this process ends in any way, the jobs are asked to save and end too (on Linux; elsewhere they go on alone).

    Args:
        jobs: What to run, in this order.
        at_once: Number of simultaneous jobs.
        tell: Takes each job that has ended.

    Returns:
        How all ended, in the order of their ends.

    Raises:
        KeyboardInterrupt: After all jobs have saved and ended.
    """
    waiting, ended = list(jobs), []
    running: dict[subprocess.Popen[bytes], tuple[Job, float]] = {}
    try:
        with _terminated_as_interrupted():
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    running[start_process(job, os.environ)] = job, time.monotonic()
                for process in [process for process in running if process.poll() is not None]:
                    job, started = running.pop(process)
                    ended.append(Ended(job, process.returncode, time.monotonic() - started))
                    tell(ended[-1])
                time.sleep(_POLL_SECONDS)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return ended


def start_process(job: Job, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a job here, with one thread unless the variables of its environment say otherwise."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    surroundings = {**threads, **variables, LAUNCHER: str(os.getpid())}
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
        # What an agent of a W&B sweep has set is for one run, and no one of these is it.
        surroundings.pop(name, None)
    if os.getcwd() not in sys.path and "" not in sys.path:
        # With -m Python would look for modules here first: a clone of this project may lie here, which is no package.
        surroundings["PYTHONSAFEPATH"] = "1"
    with job.log.open("wb") as log:
        return subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=surroundings
        )


def end_with_launcher() -> None:
    """Have this process, if `run_jobs` started it, asked to end (SIGTERM) when the one that started it has ended."""
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(launcher):
        sys.exit("stopped: what started this run has gone.")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that jobs are waited for; only the main thread of a process can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
