"""The flagship table: the built-in curricula against their own ablations, on five seeds that nothing was tuned on.

    python benchmarks/flagship.py --out docs/results.md

For each task `rlstages compare` trains all arms for the same number of environment steps. The dip at the hand-over is
measured beside it: one clone for each seed goes into its first fine-tuning stage, with the protections and without, and
plays 200 episodes in that stage's environment before, and one rollout after the first 8,192 steps of updates, on the
same seeds; the guard has looked by then. What was measured lies in `runs/flagship/` and is gone on with, not repeated,
when the command is given again. `--tasks` picks some of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from handover import cloned, ends_of, handed_over, load_task, played, rollout_of

from rlstages import FineTuning
from rlstages.arms import ARMS
from rlstages.baselines import normalized
from rlstages.cli.launching import read_seeds

BASE = Path("runs/flagship")
TASKS = ["rooms", "pointmaze", "minigrid-multiroom", "minigrid-doorkey", "lunarlander"]
COMPARED = "staged,no-curriculum,scratch,clone-only,naive-handover"
STEPS = {"minigrid-multiroom": 250_000, "lunarlander": 600_000}
"""Environment steps of each run, demonstrations included; elsewhere as many as the dearest run of `staged` takes."""
HANDED_OVER = ["staged", "naive-handover"]
FIRST_STEPS = 8_192


def compare(name: str, seeds: str, jobs: int) -> dict[str, Any] | None:
    """Compare the arms of a curriculum and return what `compare.json` says, or `None` if there is nothing to say."""
    out = BASE / name
    options = ["--seeds", seeds, "--arms", COMPARED, "--episodes", "200", "--jobs", str(jobs), "--track", "none"]
    if name in STEPS:
        options += ["--steps", str(STEPS[name])]
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


def dips(name: str, seeds: list[int]) -> dict[str, list[float]]:
    """Return what is lost at the hand-over, in normalised score, by arm and seed."""
    file = BASE / f"{name}-dips.json"
    found: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    task = load_task(name)
    where = task.curriculum.stages[1].environment
    ends: tuple[float, float] | None = None
    for seed in seeds:
        if all(f"{arm} / {seed}" in found for arm in HANDED_OVER):
            continue
        ends = ends or ends_of(task, where)
        with tempfile.TemporaryDirectory() as directory:
            clone = Path(directory) / "clone"
            before = played(task, where, cloned(task, clone, seed), seed)
            for arm in HANDED_OVER:
                stage = ARMS[arm](task.curriculum).stages[1]
                assert isinstance(stage, FineTuning)
                # One rollout more than the guard waits for: it has looked, and the clone has come back if it must.
                steps = FIRST_STEPS + rollout_of(task)
                learner = handed_over(task, stage, clone, Path(directory) / arm, seed, steps)
                after = played(task, where, learner, seed)
                found[f"{arm} / {seed}"] = normalized(before, ends) - normalized(after, ends)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    return {arm: [found[f"{arm} / {seed}"] for seed in seeds] for arm in HANDED_OVER}


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
    return [
        *lines,
        "",
        *(f"Dip at the hand-over of `{arm}`, seed by seed: {_numbers(lost)}." for arm, lost in found["dips"].items()),
        "",
        f"Least share of an earlier variant's score that `staged` keeps to its end, seed by seed: {_retained(found)}.",
        "",
    ]


def overall(lost: list[dict[str, list[float]]]) -> str:
    """Return what is lost at the hand-over, over all tasks and seeds."""
    every = {arm: [dip for task in lost for dip in task[arm]] for arm in HANDED_OVER}
    said = ", ".join(f"{np.median(dips):.3f} (worst {max(dips):.2f}) in `{arm}`" for arm, dips in every.items())
    return f"Median dip at the hand-over, in normalised score, over all of these tasks and seeds: {said}.\n"


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
    torch.set_num_threads(1)
    seeds, parts, lost = read_seeds(options.seeds), [], list[dict[str, list[float]]]()
    for name in options.tasks:
        found = compare(name, options.seeds, options.jobs)
        if found is None:
            parts += [f"## {name}", "", "The comparison failed.", ""]
            continue
        found["dips"] = dips(name, seeds)
        lost.append(found["dips"])
        parts += section(name, found)
        text = "\n".join([head(options.seeds), overall(lost), *parts])
        if options.out is not None:
            options.out.write_text(text)
        print(text)


if __name__ == "__main__":
    main()
