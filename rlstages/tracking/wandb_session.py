"""Opening a W&B run that stays inside its run directory, says nothing of the machine and never asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlstages.tracking.privacy import without_paths

INIT_SECONDS = 15.0
_FINISH_SECONDS = 60.0


def open_run(
    directory: Path, mode: str, options: Mapping[str, Any], init_seconds: float, warn: Callable[[str], None]
) -> tuple[Any, bool]:
    """Open a run, offline where online fails.

    Args:
        directory: The run directory, absolute.
        mode: `"online"` or `"offline"`.
        options: Further arguments of `wandb.init`.
        init_seconds: How long the server may take to answer.
        warn: Takes one sentence for a person.

    Returns:
        The run, and whether it is online.
    """
    import wandb

    (directory / "wandb").mkdir(exist_ok=True)
    arguments = {**options, "dir": directory, "settings": _settings(wandb, init_seconds)}
    if mode == "online":
        try:
            return wandb.init(**arguments, mode="online"), True
        except Exception as error:
            warn(f"W&B does not answer, so this run is kept offline ({explain(error)}); wandb sync uploads it later.")
            # W&B's service holds on to the id of the run that failed. It is also the service of a run that the calling
            # program may have open, which is worth more than this mirror.
            if wandb.run is None:
                wandb.teardown(exit_code=1)
    return wandb.init(**arguments, mode="offline"), False


def explain(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {without_paths(' '.join(str(error).split()))}"


@contextmanager
def environment(directory: Path) -> Iterator[None]:
    """Point W&B's staging area and logs into a run directory for a while; no setting of `wandb.init` does that.

    They would else be in the user's home directory. `WANDB_SILENT` also silences what is said before settings are read.
    """
    values = {
        "WANDB_DATA_DIR": str(directory / "wandb" / "data"),
        "WANDB_CACHE_DIR": str(directory / "wandb" / "cache"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
    }
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _settings(wandb: Any, init_seconds: float) -> Any:
    """Return settings that keep standard output, the command line, code, git, host and machine out of the run."""
    wanted = {
        "console": "off",
        "disable_git": True,
        "disable_code": True,
        "save_code": False,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        "host": "local",
        "program": "rlstages",
        "silent": True,
        # A run that the calling program has open is neither continued nor finished.
        "reinit": "create_new",
        "init_timeout": init_seconds,
    }
    # Without it `finish` waits for a silent server for ever; older releases do not know it.
    if "finish_timeout" in wandb.Settings.model_fields:
        wanted["finish_timeout"] = _FINISH_SECONDS
    return wandb.Settings(**wanted)
