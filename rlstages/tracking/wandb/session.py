"""Opening a W&B run: its mode, its metadata and the place of its files.

It stays inside its run directory, says nothing of the machine and never asks. What writes files works in the current
directory, which is the run directory: W&B writes the paths it is given into its files, and relative ones tell nobody
where the run lies.
"""

from __future__ import annotations

import configparser
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlstages.events import RunStarted
from rlstages.events.privacy import without_paths
from rlstages.specs.agent import Agent
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.serialization import TAG, dumps, to_data
from rlstages.specs.stages.base import StageSpec
from rlstages.storage.groups import membership_of

Mode = Literal["online", "offline", "none"]
Wanted = Literal["auto", "online", "offline", "none"]

_WORDS: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "none",
}
FOLDER = Path("wandb")
# W&B makes the path of its staging area absolute and writes it into an offline run, where `wandb sync` reads it. This
# name of the current directory says nothing.
_HERE = Path("/proc/self/cwd")
_ONLY = [("type", "Agent"), ("type", "Environment"), ("type", "Expert")]


def said_mode(wanted: Wanted) -> Wanted:
    """Return the mode that the user has set, without importing wandb.

    `"auto"` follows `WANDB_MODE`, then what `wandb offline` saved; where neither says anything it stays, and
    `tracking_mode` decides. Anything else stands as it is.
    """
    if wanted != "auto":
        return wanted
    said = os.environ.get("WANDB_MODE") or saved_settings().get("mode", "")
    return _WORDS.get(said.lower(), "auto")


def tracking_mode(wanted: Wanted) -> Mode:
    """Return the mode of a run: the one that the user has set, else online if a key is configured, else offline.

    It imports wandb where nothing was said, which takes half a second.
    """
    said = said_mode(wanted)
    if said == "auto":
        return "online" if _has_key() else "offline"
    return said


def _has_key() -> bool:
    """Return whether wandb finds a key, at any of its servers and places."""
    from wandb import Settings
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib.wbauth import authenticate_session

    saved = saved_settings()
    if saved.get("api_key") or saved.get("identity_token_file"):
        return True
    host = os.environ.get("WANDB_BASE_URL") or saved.get("base_url") or Settings().base_url
    try:
        return authenticate_session(host=host, source="", prompt=False, update_session=False) is not None
    except AuthenticationError:
        # The key is invalid. Going online tells the user so; staying offline would not.
        return True
    except (OSError, UnicodeDecodeError):
        # The file that should contain the key cannot be read.
        return False


def saved_settings() -> Mapping[str, str]:
    """Return what W&B's settings files say: the one of this directory (`wandb init` makes it) over the user's."""
    home = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    here = os.environ.get("WANDB_DIR") or "."
    found: dict[str, str] = {}
    for file in (Path(home) / "settings", Path(here) / "wandb" / "settings"):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(file.expanduser(), encoding="utf-8")
            found.update(parser["default"])
        except (configparser.Error, KeyError, OSError, RuntimeError, UnicodeDecodeError):
            continue
    return found


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
    """Open a run, or continue an existing one if online.

    Args:
        mode: Whether W&B's server is asked.
        run_id: W&B's id of the run.
        init_seconds: Maximum time in seconds for the first answer of the server.
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
    """Return the arguments of `wandb.init` for group, job type, tags and notes.

    The user's own group and type (`WANDB_RUN_GROUP`, `WANDB_JOB_TYPE`) go before those of the comparison or sweep whose
    directory the run lies in; an arm's tag is added to the run's own and the user's (`WANDB_TAGS`); a run's own notes
    go before the user's (`WANDB_NOTES`).

    Args:
        otherwise: Group of a run that belongs to neither.
        notes: Notes of the run.
        tags: Tags of the run.
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
    """Remove the files of earlier sessions of this run, because the whole run is written again."""
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


def config_of(started: RunStarted, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run.

    The parameters of the curriculum's function by their own names (`parameter.NAME` where a key below has it); the
    agent's and the stages' settings as `agent.*` and `stage.NAME.*`, with what is in force where a spec says `None`;
    `curriculum` (its name), `curriculum_json` (all of it), `digest`, `seed` and `version.*`.
    """
    curriculum = started.curriculum
    found: dict[str, Any] = {
        "curriculum": curriculum.name,
        "curriculum_json": dumps(without_paths(to_data(curriculum))),
        "digest": curriculum.digest,
        "seed": started.seed,
        **_flat("version", started.versions),
        **_flat("agent", _agent(curriculum.agent)),
        **_flat("held_out", without_paths(to_data(curriculum.held_out))),
        "retention_share": curriculum.retention_share,
    }
    for stage in curriculum.stages:
        found |= _flat(f"stage.{stage.name}", _stage(curriculum, stage))
    given = {f"parameter.{name}" if name in found else name: value for name, value in parameters.items()}
    return {**without_paths(given), **found}


def _agent(agent: Agent) -> dict[str, Any]:
    algorithm: dict[str, Any] = to_data(agent.algorithm)
    name = algorithm.pop(TAG)
    return {**to_data(agent), **algorithm, "algorithm": name}


def _stage(curriculum: Curriculum, stage: StageSpec) -> dict[str, Any]:
    data: dict[str, Any] = without_paths(to_data(stage))
    # Its name is in the keys, and its settings of the algorithm are among those in force.
    del data["name"]
    data.pop("settings", None)
    in_force: dict[str, Any] = to_data(stage.in_force(curriculum.agent))
    return data | in_force


def _flat(prefix: str, data: Any) -> dict[str, Any]:
    """Return nested data as one level: keys are joined by dots, and what is not set or can be only one is left out."""
    if isinstance(data, Mapping):
        named = [("type" if key == TAG else key, value) for key, value in data.items()]
        inside = [(key, value) for key, value in named if (key, value) not in _ONLY]
    elif isinstance(data, (list, tuple)) and any(isinstance(value, (Mapping, list, tuple)) for value in data):
        inside = [(str(number), value) for number, value in enumerate(data)]
    else:
        return {} if data is None else {prefix: data}
    return {name: value for key, part in inside for name, value in _flat(f"{prefix}.{key}", part).items()}
