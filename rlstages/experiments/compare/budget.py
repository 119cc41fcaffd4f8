"""The budget of a comparison: the environment steps that every run may spend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rlstages.errors import require, require_int, require_sound
from rlstages.experiments.compare.curve import CURVE_FILE as CURVE
from rlstages.experiments.compare.curve import read_curve
from rlstages.experiments.compare.directory import PLAN_FILE, run_path
from rlstages.experiments.compare.plan import Plan
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import loads
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.lock import lock, patiently, unlock
from rlstages.storage.untrusted import read_bytes


def steps_of(directory: Path, plan: Plan) -> int | None:
    """Return what every run may spend: as planned, or the most that the first arm's runs needed for their stages.

    It never falls, whatever seeds and arms are left out: runs that have spent more cannot be compared with others at
    less. `None` if no run of the first arm has come so far, and nothing was settled before.

    Raises:
        InputError: If less is planned than was settled before.
    """
    before = settled_steps(directory)
    if plan.steps is not None:
        _require_no_fewer(directory, plan.steps, before)
        return plan.steps
    curves = [read_curve(run_path(directory, plan.reference, seed)) for seed in plan.seeds]
    needs = [before, *(curve.own_cost for curve in curves)]
    return max((steps for steps in needs if steps is not None), default=None)


def settle_steps(directory: Path, steps: int) -> None:
    """Record the budget before any run spends it.

    Raises:
        InputError: If more was settled before.
    """
    if settled_steps(directory) == steps:
        return
    handle = patiently(lambda: lock(directory))
    try:
        _require_no_fewer(directory, steps, settled_steps(directory))
        said = {**loads(read_bytes(directory / PLAN_FILE)), "steps": steps}
        replace_durably(directory / PLAN_FILE, json.dumps(said, indent=1).encode())
    finally:
        unlock(handle)


def settled_steps(directory: Path) -> int | None:
    """Return the recorded budget of a comparison, or `None` if there is none yet.

    Comparisons of before it was written down are as long as their longest final run.

    Raises:
        InputError: If the comparison's file is damaged.
    """
    file = directory / PLAN_FILE
    if not file.exists():
        return None
    said = loads(read_bytes(file))
    require_sound(isinstance(said, dict), f"{file} is damaged; give another --out, or delete the directory.", file)
    if "steps" in said:
        require_int(str(file), "steps", said["steps"])
        return int(said["steps"])
    rows = [row for run in directory.glob(f"*/{CURVE}") for row in read_curve(run.parent).rows]
    return max((row.steps for row in rows if row.steps is not None), default=None)


def excess(plan: Plan, cost: int, scores: Sequence[Score], steps: int) -> int:
    """Return the excess of a run's cost that its last rollout and a confirmation's wave do not explain, or 0.

    Args:
        plan: Plan of the comparison.
        cost: Steps that the run spent in all.
        scores: Scores of its final policy, whose episodes tell the length of a wave.
        steps: What it could spend.
    """
    wave = plan.curriculum.agent.n_envs * max(score.steps / score.episodes for score in scores)
    over = cost - steps
    return over if over > plan.rollout_steps + wave else 0


def _require_no_fewer(directory: Path, steps: int, before: int | None) -> None:
    sentence = (
        f"--steps is {steps:,}, but runs in {directory} were given {before or 0:,}, and what they have spent cannot be "
        f"taken back; give at least --steps {before}, leave it out, or give another --out."
    )
    require(before is None or steps >= before, sentence, "option-invalid", directory, "--steps", steps)
