"""What gates cost: the share of fine-tuning's steps that confirmations take and nothing is learned from.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/gates_cost.py rooms cartpole --seeds 20:30 --out FILE

trains each built-in curriculum with each seed, one after the other, into `runs/gates-cost/NAME-sSEED`; a run that has
ended is not made again. `--runs DIR` trains nothing: it reads every run directory in DIR. All numbers come from the
runs' event logs. Every step of a fine-tuning stage is one of these:

- trained on: rollouts, those of the critic fit included, and those of a confirmation that were learned from later;
- failed: episodes of confirmations after which the gate stayed shut, and which nothing learned from;
- opened: those of confirmations that opened a gate, rollouts of such a confirmation included;
- other: looks of the hand-over's guard and looks back, and with deterministic actions episodes played for the window.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlstages import FineTuning, train
from rlstages.cli.launching import read_seeds
from rlstages.events import Event, Judged, RolloutFinished, RunFinished, RunStarted, StageFinished, StageStarted
from rlstages.storage.run_directory import read_events

NAMES = ["rooms", "cartpole", "pointmaze", "minigrid-multiroom", "minigrid-doorkey"]
BASE = Path("runs/gates-cost")
USES = {
    "trained": "trained on",
    "failed": "failed, never trained on",
    "opened": "opened a gate",
    "other": "other",
}


@dataclass
class Cost:
    """What the steps of one run went into.

    Attributes:
        name: Of the curriculum.
        steps: By use.
        gates: Steps of the run at which each stage's gate opened; `None` where it did not.
        attempts: Confirmations that were begun.
    """

    name: str = ""
    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USES, 0))
    gates: dict[str, int | None] = field(default_factory=dict)
    attempts: int = 0

    @property
    def end(self) -> int | None:
        """Steps at which the last gate opened."""
        return list(self.gates.values())[-1] if self.gates else None

    def share(self, use: str) -> float:
        """Return the share of all steps that went into this."""
        return self.steps[use] / max(1, sum(self.steps.values()))


def cost_of(events: Iterable[Event]) -> Cost:
    """Add up a run's steps, from one event that tells the stage's steps to the next."""
    cost, rollout, before = Cost(), 0, 0
    # Of the confirmation under way: what it was judged by last, rollouts for which the policy stood still, and those of
    # them that came after the stage's last step and are not learned from.
    judged = held = late = 0
    limits: dict[str, int] = {}
    for event in events:
        happened = event.payload
        if isinstance(happened, RunStarted):
            cost.name, rollout = happened.curriculum.name, happened.curriculum.agent.rollout_steps
            limits = {s.name: s.max_steps for s in happened.curriculum.stages if isinstance(s, FineTuning)}
            cost.gates = cost.gates or dict.fromkeys(limits)
        if isinstance(happened, StageStarted):
            before = 0
        if event.stage_name not in cost.gates or not hasattr(happened, "stage_steps"):
            continue
        spent, before = happened.stage_steps - before, happened.stage_steps
        if isinstance(happened, Judged):
            judged += spent
            cost.attempts += happened.verdict.met or happened.verdict.futile
            if happened.verdict.met:
                cost.steps["opened"] += judged + held + late
                judged = held = late = 0
        elif isinstance(happened, RolloutFinished):
            if spent:
                # What was judged before was played for nothing else.
                cost.steps["failed"] += judged
                cost.steps["other"] += max(0, spent - rollout)
            played, judged = min(spent, rollout) or judged, 0
            if happened.phase == "confirming" and happened.stage_steps >= limits[event.stage_name]:
                late += played
            elif happened.phase == "confirming":
                held += played
            else:
                learned = happened.phase in ("critic fit", "training")
                cost.steps["trained" if learned else "other"] += held + played
                held = 0
        else:
            cost.steps["other"] += spent
        if isinstance(happened, StageFinished):
            cost.steps["failed"] += judged + held + late
            judged = held = late = 0
            cost.gates[event.stage_name] = event.global_step if happened.outcome == "reached" else None
    return cost


def has_ended(run: Path) -> bool:
    """Say whether a run came to its end."""
    last = None
    for event in read_events(run):
        last = event.payload
    return isinstance(last, RunFinished) and last.outcome in ("reached", "missed")


def table(costs: Sequence[Cost]) -> str:
    """Return Markdown: for each curriculum the median over seeds, and in brackets the worst one."""
    lines = [
        f"| curriculum | to its end | confirmations | {' | '.join(USES.values())} | steps to the end | "
        "steps to each gate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(cost.name for cost in costs):
        own = [cost for cost in costs if cost.name == name]
        ends = [cost.end for cost in own]
        shares = [
            _cell([cost.share(use) for cost in own], min if use == "trained" else max, lambda v: f"{v:.1%}")
            for use in USES
        ]
        gates = ", ".join(f"{gate}: {_steps([cost.gates[gate] for cost in own])}" for gate in own[0].gates)
        lines.append(
            f"| {name} | {sum(end is not None for end in ends)} of {len(ends)} "
            f"| {_cell([float(cost.attempts) for cost in own], max, lambda v: f'{v:g}')} "
            f"| {' | '.join(shares)} | {_steps(ends)} | {gates} |"
        )
    return "\n".join(lines)


def _steps(values: Sequence[int | None]) -> str:
    """Return them as a cell; a gate that did not open is later than all."""
    return _cell([np.inf if v is None else float(v) for v in values], max, lambda v: f"{v:,.0f}" if v < np.inf else "-")


def _cell(values: Sequence[float], worst: Callable[[Sequence[float]], float], show: Callable[[float], str]) -> str:
    return f"{show(float(np.median(values)))} ({show(worst(values))})"


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=NAMES)
    parser.add_argument("--seeds", type=read_seeds, default=range(20, 30), help="20:30, or 1,4,7")
    parser.add_argument("--runs", type=Path, help="directory of run directories to read instead of training")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    if options.runs is not None:
        runs = sorted((log.parent for log in options.runs.glob("*/events.jsonl")), key=lambda run: run.name)
    else:
        runs = [BASE / f"{name}-s{seed}" for name in options.tasks for seed in options.seeds]
        for run in (run for run in runs if not has_ended(run)):
            name, _, seed = run.name.rpartition("-s")
            train(name, seed=int(seed), out=run)
            print(f"{run.name} is done", file=sys.stderr, flush=True)
    text = table([cost_of(read_events(run)) for run in runs])
    print(text)
    if options.out is not None:
        options.out.write_text(f"{_HEAD}{text}\n")


_HEAD = """# What gates cost

Made by `python benchmarks/gates_cost.py`: the median over seeds, and in brackets the worst seed. Shares are of all
fine-tuning stages' steps; steps count from the beginning of the run, without demonstrations.

"""


if __name__ == "__main__":
    main()
