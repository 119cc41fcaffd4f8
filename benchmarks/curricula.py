"""The table of curricula: what staging reaches, beside the clone alone and beside training from scratch.

For each curriculum and seed `rlstages compare` trains the curriculum, then the same agent from scratch in the last
variant for the same number of environment steps (those of demonstrations and confirmations included), and plays 200
fresh episodes of the last variant with the clone, the scratch policy and the final policy.

    python benchmarks/curricula.py --seeds 0 1 2 --jobs 2 --out docs/curricula.md

What was measured before lies in `runs/table/` and is not run again; delete the directory to start over.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NAMES = ["rooms", "pointmaze", "cartpole", "minigrid-multiroom", "lunarlander"]
BASE = Path("runs/table")
ARMS = ["clone-only", "scratch", "staged"]


def measure(name: str, seed: int) -> dict[str, Any] | None:
    """Compare the three arms on one seed and return a row, or `None` if a run failed."""
    from rlstages import load_curriculum
    from rlstages.events import StageFinished
    from rlstages.experiments.compare.arms import last_variant
    from rlstages.experiments.compare.curve import read_curve
    from rlstages.specs.stages.fine_tuning import GOING_ON
    from rlstages.storage.run_directory import read_events

    out = BASE / f"{name}-s{seed}"
    options = ["--seeds", str(seed), "--arms", "staged,scratch,clone-only", "--jobs", "1", "--track", "none"]
    command = [sys.executable, "-m", "rlstages", "compare", name, *options, "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)
    found = json.loads((out / "compare.json").read_text()) if ended.returncode == 0 else {"arms": []}
    if len(found["arms"]) < len(ARMS):
        print(f"{name} seed {seed} failed:\n{ended.stdout}{ended.stderr}", file=sys.stderr)
        return None
    scores = {arm["name"]: arm["runs"][0]["scores"][0] for arm in found["arms"]}
    events = [event for event in read_events(out / f"staged-s{seed}") if isinstance(event.payload, StageFinished)]
    own = [event.payload for event in events if not event.stage_name.startswith(GOING_ON)]
    curve = read_curve(out / f"staged-s{seed}")
    return {
        "name": name,
        "seed": seed,
        "outcome": own[-1].outcome,
        "threshold": str(last_variant(load_curriculum(name)).until),
        "steps": curve.own_cost,
        "seconds": sum(end.seconds for end in own),
        "scores": scores,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| curriculum (last threshold) | seed | outcome | steps | seconds | clone | scratch, same steps | staged |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [_cell(row["scores"][arm], "success" in row["threshold"]) for arm in ARMS]
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
    options = parser.parse_args()
    wanted = [(name, seed) for name in options.names for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = [row for row in pool.map(lambda pair: measure(*pair), wanted) if row is not None]
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


if __name__ == "__main__":
    main()
