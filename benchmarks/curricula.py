"""The table of curricula: what staging reaches, beside the clone alone and beside training from scratch.

For each curriculum and seed it trains the curriculum, then trains the same agent from scratch in the last variant for
the same number of environment steps (those of demonstrations and confirmations included), and plays 200 fresh
episodes of the last variant with the clone, the scratch policy and the final policy.

    python benchmarks/curricula.py --seeds 0 1 2 --jobs 2 --out docs/curricula.md

A row that was measured before is read from `runs/table/` and not run again; delete the directory to start over.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

NAMES = ["rooms", "pointmaze", "cartpole", "minigrid-multiroom", "lunarlander"]
BASE = Path("runs/table")
EPISODES = 200


def measure(name: str, seed: int) -> dict[str, Any]:
    """Train one curriculum and its scratch arm, and score the three policies in the last variant."""
    import torch

    from rlstages import BehaviorCloning, Curriculum, FineTuning, RewardThreshold, load_curriculum, train
    from rlstages.events import DemonstrationsReady, StageFinished
    from rlstages.policies import final_policy_file
    from rlstages.storage.rundir import read_events

    torch.set_num_threads(1)
    curriculum = load_curriculum(name)
    path, scratch_path = BASE / f"{name}-s{seed}", BASE / f"{name}-scratch-s{seed}"
    started = time.perf_counter()
    result = train(curriculum, seed=seed, out=path)
    seconds = time.perf_counter() - started
    events = list(read_events(path))
    ends = [event.payload for event in events if isinstance(event.payload, StageFinished)]
    shown = sum(e.payload.score.steps for e in events if isinstance(e.payload, DemonstrationsReady))
    steps = events[-1].global_step + shown
    last = next(stage for stage in reversed(curriculum.stages) if isinstance(stage, FineTuning))
    # Never promising, so that scratch trains for exactly the same cost.
    alone = replace(last, until=RewardThreshold(1e9), max_steps=steps, anchor_kl=0.0, evaluation_episodes=0)
    scratch = train(Curriculum(f"{name}-scratch", agent=curriculum.agent, stages=[alone]), seed=seed, out=scratch_path)
    clone = next(i for i, stage in enumerate(curriculum.stages) if isinstance(stage, BehaviorCloning))
    files = {
        "clone": path / ends[clone].policy,
        "scratch": final_policy_file(scratch.path),
        "final": final_policy_file(path),
    }
    scores = {arm: _score(path, file, last.environment, seed) for arm, file in files.items()}
    return {
        "name": name,
        "seed": seed,
        "outcome": result.outcome,
        "threshold": str(last.until),
        "steps": steps,
        "seconds": seconds,
        "scores": scores,
    }


def _score(run: Path, file: Path, environment: Any, seed: int) -> dict[str, Any]:
    from rlstages.environments.making import make_vec_env
    from rlstages.environments.seeding import Purpose
    from rlstages.episodes import score
    from rlstages.evaluation import evaluate
    from rlstages.learners.learner import read_policy
    from rlstages.policies import learner_of
    from rlstages.serialization import to_data
    from rlstages.storage.record import read_record

    record = read_record(run)
    learner = learner_of(record)
    learner.load_policy(read_policy(file))
    fresh = 10_000 + seed
    env = make_vec_env(environment, record.curriculum.agent.n_envs, fresh, 0, Purpose.EVALUATION)
    try:
        deterministic = record.curriculum.agent.action_mode == "deterministic"
        data = to_data(score(evaluate(learner.policy, env, EPISODES, fresh, 0, deterministic)))
        return dict(data)
    finally:
        env.close()


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| curriculum (last threshold) | seed | outcome | steps | seconds | clone | scratch, same steps | staged |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [_cell(row["scores"][arm], "success" in row["threshold"]) for arm in ("clone", "scratch", "final")]
        lines.append(
            f"| {row['name']} ({row['threshold']}) | {row['seed']} | {row['outcome']} | {row['steps']:,} "
            f"| {row['seconds']:.0f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _cell(score: dict[str, Any], as_success: bool) -> str:
    if as_success:
        return f"{score['success']:.2f} [{score['success_low']:.2f}, {score['success_high']:.2f}]"
    return f"{score['mean_return']:.0f} [{score['return_low']:.0f}, {score['return_high']:.0f}]"


def main() -> None:
    """Measure what is missing, one process a row, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="rows measured at a time, one core each")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, seed = options.one[0], int(options.one[1])
        print(json.dumps(measure(name, seed)))
        return
    wanted = [(name, seed) for name in options.names for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = [row for row in pool.map(lambda pair: _row(*pair), wanted) if row is not None]
    text = table(rows)
    print(text)
    if options.out:
        options.out.write_text(_HEAD.format(command=" ".join(["python", *sys.argv])) + text + "\n")


_HEAD = """# Curricula: staged, clone alone, scratch

Made by `{command}`: success or return in the last variant over 200 fresh episodes with 95 % intervals (Wilson for
success, t for return), stochastic or deterministic actions as the curriculum declares. Steps count training,
confirmations and demonstrations; scratch gets as many. Seconds are wall-clock of the staged run on one core, two runs
at a time.

"""


def _row(name: str, seed: int) -> dict[str, Any] | None:
    done = BASE / f"{name}-s{seed}.json"
    if done.exists():
        row: dict[str, Any] = json.loads(done.read_text())
        return row
    command = [sys.executable, __file__, "--one", name, str(seed)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads}, check=False)
    if ended.returncode:
        print(f"{name} seed {seed} failed:\n{ended.stderr}", file=sys.stderr)
        return None
    done.write_text(ended.stdout.splitlines()[-1])
    row = json.loads(done.read_text())
    return row


if __name__ == "__main__":
    main()
