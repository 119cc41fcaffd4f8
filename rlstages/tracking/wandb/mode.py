"""Whether and where a run goes to Weights & Biases. Nobody is asked anything."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

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


def said_mode(wanted: Wanted) -> Wanted:
    """Return what the user has said, without importing wandb.

    `"auto"` follows `WANDB_MODE`, then what `wandb offline` saved; where neither says anything it stays, and
    `tracking_mode` decides. Anything else stands as it is.
    """
    if wanted != "auto":
        return wanted
    said = os.environ.get("WANDB_MODE") or saved_settings().get("mode", "")
    return _WORDS.get(said.lower(), "auto")


def tracking_mode(wanted: Wanted) -> Mode:
    """Decide how a run is tracked: as was said, else online where a key is configured, and offline where none is.

    It imports wandb where nothing was said, which takes half a second.
    """
    said = said_mode(wanted)
    if said == "auto":
        return "online" if _has_key() else "offline"
    return said


def _has_key() -> bool:
    """Ask wandb: it knows its servers, their older names, and where a key may be."""
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
        # A key that is none: going online tells the user so, and staying offline would not.
        return True
    except (OSError, UnicodeDecodeError):
        # What should hold the key cannot be read.
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
