"""How long a person waits for the command line.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/startup.py [--turns 5] [--curriculum rooms]

Printed are medians of wall-clock and processor time: of commands that end, and of `train` up to its first stage, which
begins with a step of the environment, be it an expert's. The files that a process reads have been read before.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "rlstages"]
Taken = tuple[float, float]
"""Seconds of wall-clock, and of processor time."""


def whole(*arguments: str) -> Taken:
    """Return what a command takes from its start to its end."""
    started = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
    return _ended(process, started)


def until_first_stage(curriculum: str) -> Taken:
    """Return what training takes until its first stage starts; it is killed there."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "run" / "events.jsonl"
        started = time.perf_counter()
        arguments = ["train", curriculum, "--out", str(log.parent), "--track", "none"]
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and b"StageStarted" in log.read_bytes()):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        return _ended(process, started)


def _ended(process: subprocess.Popen[bytes], started: float) -> Taken:
    _, _, used = os.wait4(process.pid, 0)
    return time.perf_counter() - started, used.ru_utime + used.ru_stime


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--curriculum", default="rooms", help="a name or a file")
    options = parser.parse_args()
    name = options.curriculum
    cases = {
        "--help": lambda: whole("--help"),
        "curricula": lambda: whole("curricula"),
        f"show {name}": lambda: whole("show", name),
        f"train {name}, to its first stage": lambda: until_first_stage(name),
    }
    taken: dict[str, list[Taken]] = {case: [] for case in cases}
    for turn in range(options.turns + 1):
        for case, measure in cases.items():
            seconds = measure()
            if turn:
                taken[case].append(seconds)
    print(f"{'rlstages ...':40}{'wall':>8}{'cpu':>8}  seconds")
    for case, rows in taken.items():
        wall, cpu = np.median(rows, axis=0)
        print(f"{case:40}{wall:8.2f}{cpu:8.2f}")


if __name__ == "__main__":
    main()
