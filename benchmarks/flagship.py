"""The flagship table: the built-in curricula against their own ablations, on five seeds that nothing was tuned on.

    python benchmarks/flagship.py --out docs/results.md

For each task `rlstages compare` trains all arms for the same number of environment steps; comparisons lie in
`runs/flagship/` and are gone on with, not repeated, when the command is given again. `--tasks` picks some of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BASE = Path("runs/flagship")
TASKS = ["rooms", "pointmaze", "minigrid-multiroom", "minigrid-doorkey", "lunarlander"]
ARMS = "staged,no-curriculum,scratch,clone-only,naive-handover"


def compare(name: str, seeds: str, jobs: int) -> dict[str, Any] | None:
    """Compare the arms of a curriculum and return what `compare.json` says, or `None` if there is nothing to say."""
    out = BASE / name
    options = ["--seeds", seeds, "--arms", ARMS, "--episodes", "200", "--jobs", str(jobs), "--track", "none"]
    started = time.monotonic()
    command = [sys.executable, "-m", "rlstages", "compare", name, *options, "--out", str(out)]
    ended = subprocess.run(command, check=False)
    took = out / "seconds.json"
    spent = time.monotonic() - started + (json.loads(took.read_text()) if took.is_file() else 0.0)
    if ended.returncode != 0:
        return None
    took.write_text(json.dumps(spent))
    found: dict[str, Any] = json.loads((out / "compare.json").read_text())
    return {**found, "seconds": spent, "kept": [_kept(out / f"staged-s{seed}") for seed in found["seeds"]]}


def _kept(run: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "rlstages", "show", str(run), "--json"]
    said: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return said


def section(name: str, found: dict[str, Any]) -> list[str]:
    """Return one task's part of the page."""
    verdict = found["verdict"]
    lines = [
        f"## {name}",
        "",
        f"**{verdict['headline']}** {verdict['size']} {verdict['sureness']} {verdict['speed']}",
        "",
    ]
    lines += [
        f"{found['steps']:,} environment steps for each run, {found['seconds'] / 60:.0f} minutes in all.",
        "",
        f"| arm | {found['measure']} in the last variant | worst seed | normalised | reached the threshold | steps |",
        "|---|---|---|---|---|---|",
    ]
    for arm in found["arms"]:
        steps = arm["steps"]
        median = "-" if steps["median"] is None else f"{steps['median']:,.0f}"
        lines.append(
            f"| {arm['name']} | {_estimate(arm['final'][0])} | {arm['worst']:.4g} | {_estimate(arm['normalized'][0])} "
            f"| {steps['reached']} of {steps['runs']} | {median} |"
        )
    dips = [end["dip"] for run in found["kept"] for end in run["handover"].values() if end["dip"] is not None]
    lines += [
        "",
        f"Dips at the hand-over, seed by seed: {_numbers(dips)}. What earlier variants keep: {_retained(found)}.",
    ]
    return [*lines, ""]


def _estimate(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    if found["low"] is None:
        return f"{found['value']:.3g}"
    return f"{found['value']:.3g} [{found['low']:.3g}, {found['high']:.3g}]"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values) or "not measured"


def _retained(found: dict[str, Any]) -> str:
    """Return the least share of a variant's score at its own stage's end that the last policy has, seed by seed."""
    shares = []
    for run in found["kept"]:
        least = []
        for variant, column in run.get("retention", {}).items():
            after, last = column["after"], list(column["after"].values())[-1:]
            if after.get(variant) and last and last[0] is not None:
                least.append(last[0] / after[variant])
        if least:
            shares.append(min(least))
    return _numbers(shares)


def head(seeds: str) -> str:
    """Return what the page says of its circumstances."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"""# Results: staged against its own ablations

Made by `python benchmarks/flagship.py --seeds {seeds} --out docs/results.md` at commit {commit.stdout.strip()}, on
{platform.machine()} with Python {platform.python_version()}. Scores are interquartile means over seeds with 95 %
bootstrap intervals, each of 200 fresh episodes. [compare.md](compare.md) says what the arms are.
"""


def main() -> None:
    """Compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--seeds", default="15:20")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    parts = [head(options.seeds)]
    for name in options.tasks:
        found = compare(name, options.seeds, options.jobs)
        parts += section(name, found) if found is not None else [f"## {name}", "", "The comparison failed.", ""]
        text = "\n".join(parts)
        if options.out is not None:
            options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
