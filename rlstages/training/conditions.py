"""What has changed since a run was started, and whether it may go on all the same."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.utils import get_device

from rlstages.errors import InputError, require
from rlstages.reproducibility import threads_of
from rlstages.specs.agent import Agent
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.references import sources
from rlstages.storage.checkpoints import sha256
from rlstages.storage.record import PACKAGES, RunRecord, digest_from, read_record, recorded_digest, versions


def conditions(agent: Agent) -> dict[str, Any]:
    """Return what decides the last bits of a run's results besides its versions."""
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"threads": threads_of(agent), "cpu": cpu, "device": str(get_device(agent.device))}


def require_unchanged(path: Path, record: RunRecord, force: bool) -> list[str]:
    """Compare a run with what it would go on with.

    What it does must be the same: its curriculum, the files that its functions come from, and rlstages itself. Where
    other libraries, the processor or the number of threads differ, results may differ in the last bits.

    Args:
        path: Run directory.
        record: Its record.
        force: Whether to go on although what it does has changed.

    Returns:
        A sentence for each difference.

    Raises:
        InputError: If what the run does has changed and `force` is not set.
    """
    changed = changes(path, record)
    if changed and not force:
        raise InputError(
            f"{path}: {' '.join(changed)} Undo that, or go on all the same with --force.", "run-changed", path
        )
    told = [f"Forced to go on: {sentence}" for sentence in changed]
    then = {**record.versions, **record.conditions}
    now = {**versions(record.versions), **conditions(record.curriculum.agent)}
    others = [name for name in then if name != "rlstages" and then[name] != now.get(name)]
    played = [name for name in others if name in record.versions and name not in ("python", *PACKAGES)]
    bits = [name for name in others if name not in played]
    said = {name: f"{name} {then[name]} then, {now.get(name, 'none')} now" for name in others}
    if played:
        what = "; ".join(said[name] for name in played)
        told.append(f"Its environments are not as when this run was started: {what}. They may behave differently.")
    if bits:
        differences = "; ".join(said[name] for name in bits)
        told.append(f"Not as when this run was started: {differences}. Results may differ in their last bits.")
    return told


def require_own_run(path: Path, curriculum: Curriculum) -> None:
    """Refuse a run directory whose run is of another curriculum, or was made with other code.

    Raises:
        InputError: Saying what is different.
    """
    other = f"{path} is a run of another curriculum; give another --out, or delete it."
    require(recorded_digest(path) == digest_from(path, curriculum), other, "out-taken", path)
    try:
        require_unchanged(path, read_record(path), force=False)
    except InputError as error:
        raise error.retold(f"{str(error).partition(' Undo that')[0]} Undo that, or give another --out.") from None


def changes(path: Path, record: RunRecord) -> list[str]:
    """Return a sentence for each change of what a run does, since it was started."""
    changed = []
    if recorded_digest(path) != digest_from(path, record.curriculum):
        changed.append("The curriculum in run.json has been changed since it was written.")
    for module, digest in record.digests.items():
        file = sources().get(module, path / record.sources[module])
        if not file.is_file():
            changed.append(f"{file.name}, which its functions come from, is gone.")
        elif sha256(file.read_bytes()) != digest:
            changed.append(f"{file.name}, which its functions come from, has been changed.")
    own, other = record.versions["rlstages"], versions()["rlstages"]
    if own != other:
        changed.append(f"It was started with rlstages {own}, and this is {other}.")
    return changed
