"""Running many runs on a Ray cluster, with one task for each run.

A run writes its own directory, on storage that the machines share. When its machine dies, Ray gives the task to another
one, where the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from rlstages.errors import ExitCode, InputError
from rlstages.experiments.jobs import Ended, Job, start_process

INSTALL_RAY = "Running on Ray needs the package ray: pip install 'rlstages[ray]'."
RETRIES = 20
_POLL_SECONDS = 1.0


def run_jobs_on_ray(
    jobs: Sequence[Job],
    at_once: int | None,
    tell: Callable[[Ended], None],
    address: str | None = None,
    resources: dict[str, float] | None = None,
) -> list[Ended]:
    """Run jobs as tasks of a Ray cluster.

    Args:
        jobs: What to run.
        at_once: Maximum number of simultaneous jobs; `None` leaves it to Ray.
        tell: Takes each job that has ended.
        address: Address of the cluster. `None` means `RAY_ADDRESS`, or else this machine.
        resources: What each run needs, in Ray's words; default one CPU.

    Returns:
        How all ended, in the order of their ends.

    Raises:
        InputError: If Ray is not installed or the cluster does not answer.
    """
    ray = _ray()
    needs = dict(resources or {"num_cpus": 1})
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster at {address!r} does not answer: {error}", "unavailable", name="ray"
        ) from error
    try:
        # A task that failed itself is not tried again: only one whose machine or process is gone.
        task = ray.remote(max_retries=RETRIES, retry_exceptions=False, **needs)(_run)
        waiting, running, ended = list(jobs), dict[Any, tuple[Job, float]](), list[Ended]()
        while waiting or running:
            while waiting and (at_once is None or len(running) < at_once):
                job = waiting.pop(0)
                running[task.remote(job, os.getcwd(), _variables())] = job, time.monotonic()
            done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            for one in done:
                job, started = running.pop(one)
                code, lost = _end_of(ray, one)
                ended.append(Ended(job, code, time.monotonic() - started, lost))
                tell(ended[-1])
        return ended
    finally:
        ray.shutdown()


def _run(job: Job, where: str, variables: dict[str, str]) -> int:
    """Run a job on the machine that this task was given to, and return its exit code."""
    os.chdir(where)
    process: subprocess.Popen[bytes] = start_process(job, {**os.environ, **variables})
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _end_of(ray: Any, task: Any) -> tuple[int, str | None]:
    """Return the exit code of a job, and where its task did not come to its end, Ray's word for why."""
    try:
        return int(ray.get(task)), None
    except ray.exceptions.RayError as error:
        # Such as machines that have died more often than it may be tried again. What the task itself raised is inside.
        inner = getattr(error, "cause", None) or error
        first = next(iter(str(inner).strip().splitlines()), "")
        return ExitCode.FAULT, f"{type(inner).__name__}: {first}" if first else type(inner).__name__


def _variables() -> dict[str, str]:
    """Return what the processes of a run take over from this one; all else is the other machine's.

    Of Weights & Biases that is everything but directories, which are this machine's, and the service of this process.
    """
    own = {name for name in os.environ if name.startswith("WANDB_") and not name.endswith("_DIR")}
    names = {"PYTHONPATH", *own} - {"WANDB_SERVICE"}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError(INSTALL_RAY, "unavailable", name="ray") from error
    return ray
