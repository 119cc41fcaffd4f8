"""`rlstages compare`, and `rlstages compare-run`, which makes one run of a comparison."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlstages.errors import MAX_SEED, ExitCode, InputError, require, require_name, require_seed
from rlstages.specs.loading import load_with_parameters

if TYPE_CHECKING:
    from rlstages.experiments.compare.plan import Plan


def load_plan(
    source: str, parameters: Mapping[str, str], arms: Sequence[str] | None, own_arms: Sequence[str], **settings: Any
) -> Plan:
    """Load a curriculum and those of additional arms, and make the plan of the comparison.

    Args:
        source: File or name of the curriculum.
        parameters: Parameters of its function, as text.
        arms: Names of the arms, or `None` for all.
        own_arms: `"name: parameter=value, parameter=value"`: the curriculum with these values in place of its own.
        **settings: Settings of the plan, as for `make_plan`.

    Raises:
        InputError: If the curriculum or an arm cannot be made.
    """
    from rlstages.experiments.compare.plan import make_plan

    curriculum, given = load_with_parameters(source, parameters)
    own, values = dict[str, Any](), {"staged": given}
    for text in own_arms:
        name, changed = read_arm(text)
        require(
            name not in own, f"--arm {text!r}: there is an arm {name!r} already; rename it.", "name-taken", name="--arm"
        )
        try:
            own[name], values[name] = load_with_parameters(source, {**parameters, **changed})
        except InputError as error:
            raise error.retold(f"Arm {name!r}: {error}", where=f"arm {name!r}") from None
    return make_plan(curriculum, arms=arms, own_arms=own, parameters=values, **settings)


def read_arm(text: str) -> tuple[str, dict[str, str]]:
    """Read the name and the parameters of `"name: parameter=value, parameter=value"`.

    Raises:
        InputError: If it is not of that form.
    """
    name, colon, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.replace(",", " ").split()]
    good = bool(colon) and bool(pairs) and all(equals and key for key, equals, _ in pairs)
    require(
        good, f"--arm {text!r} is not of the form 'name: parameter=value'.", "option-invalid", name="--arm", value=text
    )
    require_name("--arm", name.strip())
    for key, count in Counter(key for key, _, _ in pairs).items():
        sentence = f"--arm {text!r}: {key!r} is given a value twice; give it once."
        require(count == 1, sentence, "option-invalid", name="--arm", value=text)
    return name.strip(), {key: value for key, _, value in pairs}


def print_jobs(plan: Plan, out: Path | None) -> None:
    """Print the commands of the runs that can start now."""
    from rlstages.experiments.compare.comparison import next_jobs
    from rlstages.experiments.compare.directory import directory_of

    work = next_jobs(directory_of(plan, out), plan)
    for job in work:
        print(job)
    if any("--steps" not in job.arguments for job in work):
        print("# These decide how many steps all arms get; once they are done, --dry-run prints the others.")


def compare_arms(plan: Plan, out: Path | None, on: str, jobs: int | None) -> None:
    """Make the missing runs of a comparison, and print its outcome."""
    from rlstages.experiments.compare.compare import compare_plan
    from rlstages.experiments.compare.figure import INSTALL_MATPLOTLIB, can_draw
    from rlstages.experiments.compare.table import print_summary

    done = compare_plan(plan, out, on, jobs, console=True)
    print_summary(done.results, done.conclusion)
    if not can_draw():
        print(INSTALL_MATPLOTLIB)
    print("Written: " + ", ".join(map(str, done.files)))
    if done.results.failures:
        sys.exit(ExitCode.FAULT)


def run_one(file: Path, which: str, steps: int | None, trust_imports: bool) -> None:
    """Make or continue one run of a comparison.

    Args:
        file: File of the comparison's plan, in its directory.
        which: `"ARM/SEED"`.
        steps: Environment steps that the run may spend, or `None` for as many as its stages take.
        trust_imports: Whether whatever the plan names is imported.
    """
    arm, slash, seed = which.rpartition("/")
    good = bool(slash) and seed.isdecimal() and len(seed) <= len(str(MAX_SEED))
    sentence = f"--run is {which!r}; give an arm and a seed, such as staged/0."
    require(good, sentence, "option-invalid", name="--run", value=which)
    require_seed("The seed of --run", int(seed))
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.experiments.compare.directory import read_plan
    from rlstages.experiments.compare.worker import run_arm

    leave_compiler_out()
    plan = read_plan(file, trust_imports)
    sentence = f"--run {which}: {file} has no such arm; it has {', '.join(plan.arms)}."
    require(arm in plan.arms, sentence, "name-unknown", file, "--run", which)
    result = run_arm(file.parent, plan, arm, int(seed), steps)
    print(f"{result.reason} Run directory: {os.fspath(result.path)}")
    sys.exit(ExitCode.INTERRUPTED if result.outcome == "interrupted" else 0)
