"""The flagship table: curricula against their own ablations, on five seeds that nothing was tuned on.

    python benchmarks/flagship.py --out docs/results.md

The tasks are the built-in curricula and those of `misleading/`, where what was copied leads nowhere in the end. For
each, `rlstages compare` trains all arms for the same number of environment steps. Two things are measured beside it, on
200 episodes each, with the same seeds for both policies. The dip at the hand-over: one clone for each seed goes into
its first fine-tuning stage, with the protections and without, and plays in that stage's environment before, and one
rollout after the first 8,192 steps of updates; the guard has looked by then. And what `staged` keeps: the policy that
its last stage left, or was training when the steps were spent, plays in each earlier stage's environment, as the policy
did that had left that stage.

What was measured lies in `runs/flagship/` and is gone on with, not repeated, when the command is given again. `--tasks`
picks some of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from handover import FILES, cloned, ends_of, handed_over, load_task, played, rollout_of

from rlstages import Environment, FineTuning
from rlstages.cli.launching import read_seeds
from rlstages.events import StageFinished
from rlstages.experiments.compare.arms import ARMS
from rlstages.learners.learner import Weights, read_policy, tensors
from rlstages.play.saved_policies import load_learner
from rlstages.specs.criteria.baselines import normalized
from rlstages.storage.checkpoints import checkpoint_names, read_checkpoint
from rlstages.storage.record import versions
from rlstages.storage.run_directory import read_events

BASE = Path("runs/flagship")
TASKS = ["rooms", "cartpole", "pointmaze", "minigrid-multiroom", "minigrid-doorkey", "lunarlander", *FILES]
COMPARED = "staged,no-curriculum,scratch,clone-only,naive-handover"
STEPS = {
    "minigrid-multiroom": 250_000,
    "minigrid-doorkey": 100_000,
    "lunarlander": 600_000,
    **dict.fromkeys(FILES, 120_000),
}
"""Environment steps of each run, demonstrations included; elsewhere as many as the dearest run of `staged` takes."""
HANDED_OVER = ["staged", "naive-handover"]
FIRST_STEPS = 8_192


def compare(name: str, seeds: str, jobs: int) -> dict[str, Any] | None:
    """Compare the arms of a curriculum and return what `compare.json` says, or `None` if there is nothing to say."""
    out = BASE / name
    options = ["--seeds", seeds, "--arms", COMPARED, "--episodes", "200", "--jobs", str(jobs), "--track", "none"]
    if name in STEPS:
        options += ["--steps", str(STEPS[name])]
    started, looks = time.monotonic(), curves_of(out)
    command = [sys.executable, "-m", "rlstages", "compare", str(FILES.get(name, name)), *options, "--out", str(out)]
    ended = subprocess.run(command, check=False)
    took = out / "seconds.json"
    before = json.loads(took.read_text()) if took.is_file() else 0.0
    if ended.returncode != 0:
        return None
    # To summarise runs that are there takes no time of theirs.
    spent = before if looks == curves_of(out) else before + time.monotonic() - started
    took.write_text(json.dumps(spent))
    made = out / "commit.txt"
    if not made.is_file():
        made.write_text(commit())
    found: dict[str, Any] = json.loads((out / "compare.json").read_text())
    return {**found, "seconds": spent, "commit": made.read_text()}


def curves_of(directory: Path) -> set[tuple[str, int]]:
    """Return the curves that a comparison has so far, and when each was written."""
    return {(str(file), file.stat().st_mtime_ns) for file in directory.glob("*/curve.json")}


def commit() -> str:
    """Return the commit that is checked out."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def shares_kept(name: str, seeds: list[int]) -> dict[int, dict[str, float]]:
    """Return what the policy of the last stage still scores in earlier stages' environments.

    By seed and stage: its normalised score over that of the policy that left the stage, on the same 200 episodes.
    """
    file = BASE / f"{name}-kept.json"
    found: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.is_file() else {}
    task = load_task(name)
    ends: dict[Environment, tuple[float, float]] = {}
    for seed in seeds:
        run = BASE / name / f"staged-s{seed}"
        if str(seed) in found or not run.is_dir():
            continue
        last = len(task.curriculum.stages) - 1
        left = {e.stage_index: e.payload for e in read_events(run) if isinstance(e.payload, StageFinished)}
        learner, shares = load_learner(run), dict[str, float]()
        for index in range(1, last):
            if index not in left:
                continue
            where = task.curriculum.stages[index].environment
            ends[where] = ends.get(where) or ends_of(task, where)
            scores = []
            for end in (left[index], left.get(last)):
                learner.load_policy(newest_policy(run) if end is None else read_policy(run / end.policy, end.digest))
                scores.append(normalized(played(task, where, learner, seed), ends[where]))
            shares[task.curriculum.stages[index].name] = scores[1] / scores[0]
        found[str(seed)] = shares
        file.write_text(json.dumps(found))
    return {int(seed): shares for seed, shares in found.items()}


def newest_policy(run: Path) -> Weights:
    """Return the policy of a run whose last stage had not ended when its steps were spent."""
    checkpoints = run / "checkpoints"
    return tensors(read_checkpoint(checkpoints / checkpoint_names(checkpoints)[-1])["learner"]["policy"])


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


def keep_picture(name: str, directory: Path) -> bool:
    """Copy a comparison's figure to the pages; whether there is one (it takes matplotlib)."""
    picture = BASE / name / "compare.svg"
    if picture.is_file():
        directory.mkdir(exist_ok=True)
        shutil.copyfile(picture, directory / f"{name}.svg")
    return picture.is_file()


def section(name: str, found: dict[str, Any], pictured: bool) -> list[str]:
    """Return one task's part of the page."""
    verdict = found["verdict"]
    words = " ".join([verdict["size"], verdict["sureness"], verdict["speed"], *verdict["transfer"]])
    lines = [f"## {name}", "", f"**{verdict['headline']}** {words}", ""]
    minutes = f"{found['seconds'] / 60:.0f} minutes for all of them"
    lines += [
        f"{found['steps']:,} environment steps for each run; {minutes}; made at commit {found['commit']}.",
        "",
        *([f"![{name}: learning curves and final scores](results/{name}.svg)", ""] if pictured else []),
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
        "Least share of an earlier variant's score that `staged` keeps to the end of its last stage, seed by seed: "
        f"{_numbers([min(shares.values()) for shares in found['kept'].values() if shares])}.",
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


def head(seeds: str, tasks: list[str]) -> str:
    """Return what the page says of its circumstances."""
    picked = "" if tasks == TASKS else f" --tasks {' '.join(tasks)}"
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"""# Results: staged against its own ablations

Made by `python benchmarks/flagship.py{picked} --seeds {seeds} --out docs/results.md`, summarised at commit {commit()},
on {platform.machine()} with {os.cpu_count()} cores; {used}.

Scores are interquartile means over seeds with 95 % bootstrap intervals, each of 200 fresh episodes. Minutes are
wall-clock on a machine that did other work besides. [compare.md](compare.md) says what the arms are.
"""


def wrapped(line: str) -> str:
    """Return a line of prose in lines of at most 120 characters; rows of tables stay whole."""
    indent = "  " if line.startswith("- ") else ""
    settings: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": indent}
    return line if line.startswith("|") or len(line) <= 120 else textwrap.fill(line, 120, **settings)


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
        found["dips"], found["kept"] = dips(name, seeds), shares_kept(name, seeds)
        lost.append(found["dips"])
        parts += section(name, found, options.out is not None and keep_picture(name, options.out.parent / "results"))
        text = "\n".join(
            map(wrapped, "\n".join([head(options.seeds, options.tasks), overall(lost), *parts]).split("\n"))
        )
        if options.out is not None:
            options.out.write_text(text)
        print(text)


if __name__ == "__main__":
    main()
