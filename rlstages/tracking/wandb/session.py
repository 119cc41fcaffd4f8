"""A W&B run that stays inside its run directory, says nothing of the machine and never asks.

Everything here works in the current directory, which is the run directory: W&B writes the paths it is given into its
files, and relative ones tell nobody where the run lies.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rlstages.storage.groups import membership_of

FOLDER = Path("wandb")
# W&B makes the path of its staging area absolute and writes it into an offline run, where `wandb sync` reads it. This
# name of the current directory says nothing.
_HERE = Path("/proc/self/cwd")


def redirect_wandb(run_id: str | None) -> None:
    """Point W&B's staging area, caches and logs into the run directory; no setting of `wandb.init` does that.

    They would else be in the user's home directory. `WANDB_SILENT` also silences what is said before settings are read.
    A sweep that is set for another run than this one is left out. Call it before wandb is imported.
    """
    # In a sweep W&B heeds this variable alone.
    if os.environ.get("WANDB_RUN_ID") != run_id:
        for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
            os.environ.pop(name, None)
    if FOLDER.is_symlink():
        raise NotADirectoryError(f"{FOLDER} in the run directory is a link")
    FOLDER.mkdir(exist_ok=True)
    # W&B would take server and key from settings in the run directory, which may be a stranger's.
    for settings in (FOLDER / "settings", Path(".wandb", "settings")):
        settings.unlink(missing_ok=True)
    here = _HERE if _HERE.exists() else Path()
    os.environ["WANDB_DATA_DIR"] = str(here / FOLDER / "data")
    os.environ["WANDB_CACHE_DIR"] = str(here / FOLDER / "cache")
    os.environ.update({"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"})


def open_run(mode: Literal["online", "offline"], run_id: str, init_seconds: float, system: bool, **options: Any) -> Any:
    """Open a run; online, one that is there already is gone on with.

    Args:
        mode: Whether W&B's server is asked.
        run_id: W&B's id of the run.
        init_seconds: How long the server may take to answer.
        system: Whether to measure the machine.
        **options: Further arguments of `wandb.init`.

    Raises:
        Exception: Whatever W&B raises, when there is no key, no answer, or no room.
    """
    import wandb

    if mode == "online":
        options["resume"] = "allow"
    return wandb.init(id=run_id, mode=mode, dir=".", settings=_settings(wandb, init_seconds, system), **options)


def belonging(otherwise: str, notes: str | None, tags: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `wandb.init` that say what the run belongs to, and what the user says of it.

    The user's own group and type (`WANDB_RUN_GROUP`, `WANDB_JOB_TYPE`) go before those of the comparison or sweep whose
    directory the run lies in; an arm's tag is added to the run's own and the user's (`WANDB_TAGS`); a run's own notes
    go before the user's (`WANDB_NOTES`).

    Args:
        otherwise: The group of a run that belongs to neither.
        notes: Of the run.
        tags: Likewise.
    """
    member, said = membership_of(Path.cwd()), os.environ.get
    arm = member.tag if member and member.tag else ""
    names = [name.strip() for name in [*tags, *said("WANDB_TAGS", "").split(","), arm]]
    return {
        "group": said("WANDB_RUN_GROUP") or (member.group if member else otherwise),
        "job_type": said("WANDB_JOB_TYPE") or (member.kind if member else "train"),
        "tags": list(dict.fromkeys(filter(None, names))) or None,
        "notes": notes or said("WANDB_NOTES") or None,
    }


def remove_runs() -> None:
    """Remove what earlier sessions left of this run: the whole of it is written again."""
    for folder in [FOLDER / "data", *FOLDER.glob("run-*"), *FOLDER.glob("offline-run-*")]:
        shutil.rmtree(folder, ignore_errors=True)
    remove_logs()


def remove_uploaded() -> None:
    """Remove what W&B has all of, or will be sent again."""
    if not list(FOLDER.glob("offline-run-*")):
        remove_runs()


def remove_logs() -> None:
    """Remove W&B's logs, which hold host name and paths, and what nobody needs; an offline run stays."""
    for folder in [FOLDER / "cache", *FOLDER.glob("*run-*/logs"), *FOLDER.glob("*run-*/tmp")]:
        shutil.rmtree(folder, ignore_errors=True)
    for link in FOLDER.glob("*"):
        if link.is_symlink():
            link.unlink(missing_ok=True)


def _settings(wandb: Any, init_seconds: float, system: bool) -> Any:
    """Return settings that keep standard output, the command line, code, git, host and machine out of the run.

    What is measured of the machine, if it is asked for, is that of the training: this process starts from it.
    """
    return wandb.Settings(
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=not system,
        x_stats_pid=os.getppid(),
        x_disable_machine_info=not system,
        x_save_requirements=False,
        host="local",
        program="rlstages",
        silent=True,
        init_timeout=init_seconds,
    )
