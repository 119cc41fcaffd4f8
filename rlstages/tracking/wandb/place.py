"""Where Weights & Biases has a run: kept in the run directory by the process that writes it, and told to a person."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from rlstages.errors import InputError
from rlstages.specs.serialization import dumps, loads
from rlstages.storage.record import shell_path
from rlstages.storage.untrusted import read_bytes

_FILE = Path("wandb") / "place.json"
_URL = re.compile(r"https?://[!-~]{1,2000}")
_FOLDER = re.compile(r"wandb/offline-run-[A-Za-z0-9_-]{1,200}")


def keep_place(url: str | None, folder: str | None) -> None:
    """Note where the run is whose directory is the working directory: its address, or its folder from there."""
    _FILE.write_text(dumps({"url": url, "folder": folder}))


def place_of(run: Path) -> dict[str, str]:
    """Return the `url` or the offline `folder` (from the run directory on) that W&B has a run in; empty if neither."""
    try:
        said = loads(read_bytes(run / _FILE))
    except (InputError, OSError):
        return {}
    if not isinstance(said, dict):
        return {}
    url, folder = said.get("url"), said.get("folder")
    # Whoever made the run directory may have written anything.
    if isinstance(url, str) and _URL.fullmatch(url):
        return {"url": url}
    if isinstance(folder, str) and _FOLDER.fullmatch(folder) and (run / folder).is_dir():
        return {"folder": folder}
    return {}


def place_lines(run: Path) -> list[str]:
    """Return where W&B has a run, in lines for a person; offline with the command that uploads it."""
    place = place_of(run)
    if "url" in place:
        return [f"W&B: {place['url']}"]
    if "folder" in place:
        # The files of an offline run are named from the run directory on.
        sync = f"(cd {shell_path(run)} && wandb sync {shlex.quote(place['folder'])})"
        return [f"W&B: offline, in {shell_path(run / place['folder'])}", f"Upload it: {sync}"]
    return []
