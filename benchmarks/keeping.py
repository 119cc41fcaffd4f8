"""What runs keep: the dip at the hand-over, earlier stages' variants after the last stage, and what knowing it costs.

    python benchmarks/keeping.py cartpole rooms pointmaze       # a table of the built-in curricula
    python benchmarks/keeping.py --harm lunarlander pointmaze   # a destructive hand-over, with and without the guard

A harmed run is a curriculum's clone, and one stage of 40,000 steps or more in its next variant whose gate never opens:
with a learning rate of 0.1, or with exploration noise reset to a log standard deviation of 0.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rlstages import FineTuning, load_curriculum, train
from rlstages.events import HandoverChecked
from rlstages.specs.criteria.baselines import value_of
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.stages.fine_tuning import UNREACHABLE
from rlstages.storage.run_directory import read_events
from rlstages.tracking.retention_table import dip_of, matrix_of
from rlstages.tracking.state import RunState

HARMS = {"learning rate 0.1": {"learning_rate": 0.1}, "log_std 0": {"exploration": 0.0}}
HARMED_STEPS = 40_000
"""Or ten rollouts after the critic fit, if they are more."""


def run(curriculum: Curriculum, seed: int) -> RunState:
    """Train a curriculum and return where it came to."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        train(curriculum, seed=seed, out=path)
        return RunState(curriculum, read_events(path))


def show_kept(name: str, seed: int) -> None:
    """Print a row for a built-in curriculum."""
    state = run(load_curriculum(name), seed)
    matrix = matrix_of(state)
    assert matrix is not None
    shares = [
        f"{column.name} {last / own:.2f}"
        for column in matrix.columns
        if column.own not in (None, len(matrix.stages) - 1) and column.values[-1] is not None
        for own, last in [(column.values[column.own or 0], column.values[-1])]
        if own and last is not None
    ]
    looked = [stage for stage in state.stages if stage.handover]
    fallen = [dip_of(state, stage) for stage in looked]
    dips = ", ".join(f"{dip:.2f}" + ("" if scaled else " (not normalised)") for dip, scaled in fallen)
    back = sum(check.rolled_back for stage in looked for check in stage.handover)
    steps = sum(stage.steps for stage in state.stages)
    cost = f"{matrix.steps / steps:.1%} of {steps:,} | {matrix.share:.1%} of {matrix.seconds / matrix.share:.0f} s"
    print(f"| {name} | {seed} | {dips or '-'} | {back} | {', '.join(shares) or '-'} | {cost} |", flush=True)


def show_harmed(name: str, seed: int) -> None:
    """Print a row for each harm that applies to a curriculum's actions, with and without the guard."""
    whole = load_curriculum(name)
    clone, *rest = whole.stages
    variant = next(stage for stage in rest if isinstance(stage, FineTuning) and stage.environment != clone.environment)
    steps = max(HARMED_STEPS, variant.critic_fit_steps + 10 * whole.agent.rollout_steps)
    for harm, setting in HARMS.items():
        for guard in (True, False):
            stage = replace(
                variant,
                until=variant.until & UNREACHABLE,
                max_steps=steps,
                on_timeout="advance",
                evaluation_episodes=96,
                guard_rollbacks=variant.guard_rollbacks if guard else 0,
                **setting,
            )
            state = run(replace(whole, stages=(clone, stage), retention_share=0.0), seed)
            [_, end] = state.stages
            assert end.finished is not None and end.finished.before is not None and end.finished.after is not None
            measure = end.measure_of(end.finished.before)
            before, after = (value_of(score, measure) for score in (end.finished.before, end.finished.after))
            back = sum(isinstance(check, HandoverChecked) and check.rolled_back for check in end.handover)
            shown = f"{measure} {before:.2f} | {after:.2f} | {steps:,} | {back}"
            print(f"| {name} | {seed} | {harm} | {'on' if guard else 'off'} | {shown} |", flush=True)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="built-in curricula")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--harm", action="store_true")
    options = parser.parse_args()
    if options.harm:
        print("| curriculum | seed | harm | guard | clone | at the end | steps | rollbacks |")
    else:
        print("| curriculum | seed | dip | rollbacks | kept of earlier variants | steps for scores | time for scores |")
    print("|---" * (8 if options.harm else 7) + "|")
    for name in options.names:
        for seed in range(options.seeds):
            (show_harmed if options.harm else show_kept)(name, seed)


if __name__ == "__main__":
    main()
