"""What a later stage makes a policy forget, with and without rehearsal, for the same number of environment steps.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/rehearsal.py [--seeds 0 1 2 3 4] [--json]

Each run trains in a first variant until its gate opens, and then a fixed number of steps in a second one that does not
need all of the first one's skills. Both are scored over 200 fresh episodes, before and after the second stage: the runs
of one seed share their first stage. Printed are means, with 95 % t intervals, over the seeds whose first gate opened:
on the others there is nothing to forget.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rlstages import Agent, Curriculum, Environment, FineTuning, RewardThreshold, SuccessThreshold, train
from rlstages.play.saved_policies import evaluate

NEVER = RewardThreshold(1e9)
EPISODES = 200


def rooms(share: float | None, steps: int) -> Curriculum:
    """Two rooms whose door needs a key, then four without a key."""
    room = "rlstages_envs:rlstages/Rooms-v0"
    locked, open_ = Environment(room, rooms=2, size=4, keys=1), Environment(room, rooms=4, size=5)
    return _two(Agent("PPO", n_envs=16, ent_coef=0.01), locked, SuccessThreshold(0.9), open_, share, steps)


def pointmaze(share: float | None, steps: int) -> Curriculum:
    """A maze, then several goals in an open square."""
    maze = Environment("rlstages_envs:rlstages/PointMaze-v0", size=4)
    square = Environment("rlstages_envs:rlstages/PointMaze-v0", size=6, goals=3, walls=0.0)
    return _two(Agent("PPO", n_envs=16), maze, SuccessThreshold(0.85), square, share, steps)


TASKS = {"rooms": rooms, "pointmaze": pointmaze}


def _two(
    agent: Agent, first: Environment, until: SuccessThreshold, second: Environment, share: float | None, steps: int
) -> Curriculum:
    stages = [FineTuning("first", first, until=until, max_steps=600_000, evaluation_episodes=0)]
    if share is not None:
        later = {"until": NEVER, "max_steps": steps, "on_timeout": "advance", "evaluation_episodes": 0}
        stages.append(FineTuning("second", second, rehearse=share, **later))
    return Curriculum("rehearsal", agent=agent, stages=stages)


def measure(task: str, seed: int, share: float | None, steps: int, out: Path) -> dict[str, Any]:
    """Train one run and score its last policy in both variants."""
    started = time.perf_counter()
    plan = TASKS[task](share, steps)
    result = train(plan, seed=seed, out=out)
    seconds = time.perf_counter() - started
    places = [stage.environment for stage in TASKS[task](0.0, steps).stages]
    (_, first), (_, second) = evaluate(out, EPISODES, 10_000 + seed, places)
    took = result.stages.get("second")
    spent = (took.stage_steps, took.seconds) if took else (0, 0.0)
    reached = result.stages["first"].outcome == "reached"
    row = {"task": task, "seed": seed, "share": share, "reached": reached}
    row |= {"first": first.success, "second": second.success}
    return {**row, "steps": spent[0], "seconds": spent[1], "whole": seconds}


def main() -> None:
    """Measure and print; each run as it ends, on the standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.2])
    parser.add_argument("--steps", type=int, default=150_000, help="of the second stage")
    parser.add_argument("--json", action="store_true", help="print every run as JSON")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for task, seed, share in itertools.product(arguments.tasks, arguments.seeds, (None, *arguments.shares)):
            out = Path(scratch) / f"{task}-{seed}-{share}"
            rows.append(measure(task, seed, share, arguments.steps, out))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print(
        f"{'task':12}{'rehearse':10}{'seeds':>6}{'first variant':>22}{'second variant':>22}{'steps':>10}{'seconds':>9}"
    )
    for task in arguments.tasks:
        for share in (None, *arguments.shares):
            own = [row for row in rows if row["task"] == task and row["share"] == share and row["reached"]]
            first, second = (interval([row[name] for row in own]) for name in ("first", "second"))
            steps, seconds = (float(np.mean([row[name] for row in own])) for name in ("steps", "seconds"))
            name = "(before)" if share is None else f"{share:g}"
            print(f"{task:12}{name:10}{len(own):6}{first:>22}{second:>22}{steps:10,.0f}{seconds:9.1f}")


def interval(values: list[float]) -> str:
    """Return a mean with its 95 % t interval."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


if __name__ == "__main__":
    main()
