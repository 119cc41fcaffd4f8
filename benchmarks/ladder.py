"""Whole curricula with a setting of their fine-tuning stages changed: environment steps until the end, seed by seed.

    python benchmarks/ladder.py rooms pointmaze --set demonstration_loss=0.1 --first

benchmarks/handover.py says what a protection keeps when a clone is sent straight into the last variant; this, what it
costs or brings where a ladder leads there. `--first` changes the first fine-tuning stage only, `--but-last` all but the
last. Values are JSON; `until.NAME` is a setting of the stages' thresholds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlstages import Curriculum, FineTuning, load_curriculum, train
from rlstages.reproducibility import limited_threads
from rlstages.specs.stages.base import StageSpec

_UNTIL = "until."


def main() -> None:
    """Run, and print a line for each run and each curriculum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="of built-in curricula")
    parser.add_argument("--set", nargs="+", required=True, metavar="NAME=VALUE", help="settings of FineTuning")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--first", action="store_true", help="only in the first fine-tuning stage")
    which.add_argument("--but-last", action="store_true", help="in all fine-tuning stages but the last")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    settings = {name: json.loads(value) for name, _, value in (text.partition("=") for text in options.set)}
    with limited_threads(1):
        for name in options.names:
            curriculum = load_curriculum(name)
            arms = {"as it is": curriculum, "changed": changed(curriculum, settings, options.first, options.but_last)}
            steps: dict[str, list[int]] = {arm: [] for arm in arms}
            for seed in options.seeds:
                for arm, plan in arms.items():
                    spent, outcome = run(plan, seed)
                    steps[arm].append(spent)
                    print(f"{name} seed {seed} {arm}: {outcome} after {spent:,} steps", flush=True)
            for arm, spent_by_seed in steps.items():
                low, middle, high = min(spent_by_seed), int(np.median(spent_by_seed)), max(spent_by_seed)
                print(f"{name} {arm}: {middle:,} steps ({low:,} to {high:,})", flush=True)


def changed(curriculum: Curriculum, settings: dict[str, Any], first: bool, but_last: bool = False) -> Curriculum:
    """Return a curriculum with settings in its fine-tuning stages, in the first of them, or in all but the last."""
    tuning = [stage.name for stage in curriculum.stages if isinstance(stage, FineTuning)]
    wanted = tuning[:1] if first else tuning[:-1] if but_last else tuning
    own = {name: value for name, value in settings.items() if not name.startswith(_UNTIL)}
    asked = {name.removeprefix(_UNTIL): value for name, value in settings.items() if name.startswith(_UNTIL)}
    stages: list[StageSpec] = []
    for stage in curriculum.stages:
        if isinstance(stage, FineTuning) and stage.name in wanted:
            until: Any = stage.until
            stage = replace(stage, **own, until=replace(until, **asked))
        stages.append(stage)
    return replace(curriculum, stages=tuple(stages))


def run(curriculum: Curriculum, seed: int) -> tuple[int, str]:
    """Train, and return the environment steps of all stages and how it ended."""
    with tempfile.TemporaryDirectory() as directory:
        result = train(curriculum, seed=seed, out=Path(directory) / "run")
    return sum(end.stage_steps for end in result.stages.values()), result.outcome


if __name__ == "__main__":
    main()
