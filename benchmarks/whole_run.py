"""Whole runs of a curriculum by this version and by an earlier one, in turns: wall-clock until the end, and the end.

    python benchmarks/whole_run.py --before 45de361 rooms cartpole

The earlier version is taken from the project's own history into a directory of its own and run with the packages that
are installed here. Each run is the plain command, `rlstages train NAME --seed SEED --track none`, on one core; a run
whose threshold was not reached ends with exit code 3. `45de361` is the last version whose updates were all made by
torch's autograd and whose evaluations were played by stable-baselines3's `predict`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[1]
CODES = {0: "reached", 3: "not reached"}


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="of built-in curricula")
    parser.add_argument("--before", required=True, metavar="COMMIT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        versions = {"before": taken_out(options.before, Path(place)), "after": HERE}
        for name in options.names:
            took: dict[str, list[float]] = {version: [] for version in versions}
            for seed in options.seeds:
                for version, source in versions.items():
                    seconds, code = run(source, name, seed, Path(place) / f"{name}-{seed}-{version}")
                    took[version].append(seconds)
                    print(f"{name} seed {seed} {version}: {seconds:.1f} s, {CODES.get(code, code)}", flush=True)
            ratios = np.array(took["before"]) / np.array(took["after"])
            medians = ", ".join(f"{version} {np.median(seconds):.1f} s" for version, seconds in took.items())
            print(
                f"{name}: medians {medians}; ratio {np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"
            )


def taken_out(commit: str, place: Path) -> Path:
    """Return a directory with the files of a commit."""
    source = place / "before"
    source.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=HERE, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    return source


def importing(source: Path, names: Path) -> dict[str, str]:
    """Return the variables of a process of one thread that imports the package from a directory.

    Args:
        source: Holds `rlstages` and `envs`.
        names: A directory to make, in which both have the names that they are imported by.
    """
    names.mkdir()
    (names / "rlstages").symlink_to(source / "rlstages")
    (names / "rlstages_envs").symlink_to(source / "envs")
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(names)}


def run(source: Path, name: str, seed: int, out: Path) -> tuple[float, int]:
    """Train with the package in a directory; return seconds and the exit code."""
    command = "from rlstages.cli import main; main()"
    arguments = ["train", name, "--seed", str(seed), "--track", "none", "--out", str(out)]
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        env=importing(source, out.with_suffix(".path")),
        cwd=out.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if ended.returncode not in CODES:
        print(ended.stderr, file=sys.stderr)
    return seconds, ended.returncode


if __name__ == "__main__":
    main()
