"""The directory of a comparison: its file, its run directories, and the plan for the runs' processes."""

from __future__ import annotations

from pathlib import Path

from rlstages.errors import InputError, require, require_sound
from rlstages.experiments.compare.plan import Plan
from rlstages.specs.references import sources
from rlstages.specs.serialization import dumps, from_data, loads, require_types, to_data
from rlstages.storage.checkpoints import replace_durably, sha256
from rlstages.storage.groups import COMPARISON, found, is_unused
from rlstages.storage.lock import lock, patiently, unlock
from rlstages.storage.record import absolute_from_run, digest_from, relative_to_run
from rlstages.storage.run_directory import slug
from rlstages.storage.trust import needs_trust, trust_names
from rlstages.storage.untrusted import read_bytes
from rlstages.training.conditions import require_own_run

PLAN_VERSION = 1
PLAN_FILE = COMPARISON


def directory_of(plan: Plan, out: Path | None) -> Path:
    """Return the directory of a comparison: `out`, or one in `runs/`."""
    return out if out is not None else Path("runs") / f"compare-{slug(plan.name)}"


def run_path(directory: Path, arm: str, seed: int) -> Path:
    """Return the run directory of an arm and a seed."""
    return directory / f"{slug(arm)}-s{seed}"


def claim_comparison(directory: Path, plan: Plan) -> None:
    """Make the directory of a comparison, or accept an existing one of it. Seeds and arms may differ.

    Raises:
        InputError: If the directory holds something else, or cannot be written.
    """
    require_free(directory, plan)
    said = {"version": PLAN_VERSION, "name": plan.name, "episodes": plan.episodes}
    said["digest"] = digest_from(directory / "run", plan.curriculum)
    found(directory, PLAN_FILE, said, f"compare-{slug(plan.name)}")
    # Another process may have been quicker, with a comparison of its own.
    require_free(directory, plan)


def require_free(directory: Path, plan: Plan) -> None:
    """Refuse a directory that holds something else than this comparison; nothing is written.

    Raises:
        InputError: If it does, or cannot be read.
    """
    # In this order: what a comparison's runs write, they write after its file.
    unused = is_unused(directory, PLAN_FILE)
    if (directory / PLAN_FILE).exists():
        _require_same(directory, plan, loads(read_bytes(directory / PLAN_FILE)))
    else:
        require(
            unused, f"{directory} is there already and is no comparison; give another --out.", "out-taken", directory
        )


def _require_same(directory: Path, plan: Plan, said: object) -> None:
    now = {"episodes": plan.episodes, "digest": digest_from(directory / "run", plan.curriculum)}
    for key, what in (("episodes", "number of episodes"), ("digest", "curriculum")):
        same = isinstance(said, dict) and said.get("version") == PLAN_VERSION and said.get(key) == now[key]
        sentence = f"{directory} holds a comparison with another {what}; give another --out, or delete it."
        require(same, sentence, "out-taken", directory, key)
    for arm, curriculum in plan.arms.items():
        for seed in plan.seeds:
            path = run_path(directory, arm, seed)
            if (path / "run.json").is_file():
                require_own_run(path, curriculum)


def write_plan(directory: Path, plan: Plan) -> Path:
    """Write a plan, and where the files lie that its functions come from, into a file that is named after its content.

    A comparison may get more seeds and arms while runs of an earlier plan still wait for a machine, so no plan takes
    another one's place.

    Args:
        directory: Directory of the comparison, which is there.
        plan: Plan of the comparison.

    Returns:
        The file.
    """
    files = {name: str(path) for name, path in sources().items()}
    content = dumps(relative_to_run({"plan": to_data(plan), "sources": files}, directory)).encode()
    file = directory / _named_after(content)
    held = patiently(lambda: lock(directory))
    try:
        if not file.exists():
            replace_durably(file, content)
    finally:
        unlock(held)
    return file


def read_plan(file: Path, trust_imports: bool) -> Plan:
    """Read the plan of a comparison that a process is to make a run of.

    Args:
        file: File that `write_plan` has made.
        trust_imports: Whether everything that it names may be imported, also from files that it names.

    Raises:
        InputError: If it is damaged, or names what is neither gymnasium's nor `rlstages_envs`' without `trust_imports`.
    """
    sentence = f"There is no plan {file}; the command 'rlstages compare' of the comparison writes it."
    require(file.is_file(), sentence, "file-missing", file)
    content = read_bytes(file)
    whole = file.name == _named_after(content)
    sentence = f"{file} has been changed since it was written; have 'rlstages compare' write it again."
    require(whole, sentence, "file-damaged", file)
    try:
        said = absolute_from_run(loads(content), file.parent)
        plan = from_data(said["plan"])
        require_sound(isinstance(plan, Plan), "it holds no plan.", name="plan")
        require_types(plan)
        files = {str(name): Path(path) for name, path in said["sources"].items()}
    except (InputError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: {error}", "file-damaged", file) from error
    trust_names(file, [plan.curriculum, *plan.arms.values()], files, trust_imports)
    return plan  # type: ignore[no-any-return]


def plan_needs_trust(plan: Plan) -> bool:
    """Return whether `read_plan` needs `trust_imports` for a plan."""
    return needs_trust([plan.curriculum, *plan.arms.values()], sources())


def _named_after(content: bytes) -> str:
    return f"plan-{sha256(content)[:16]}.json"
