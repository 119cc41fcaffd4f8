"""Whether and where a run goes to Weights & Biases, found out without importing it and without asking."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["online", "offline", "none"]

_WORDS: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "none",
}
_SERVER = "https://api.wandb.ai"


def tracking_mode(wanted: Literal["auto", "online", "offline", "none"]) -> Mode:
    """Decide how a run is tracked.

    `"auto"` follows `WANDB_MODE`, then what `wandb offline` saved, and else is online when a key is
    configured (environment, netrc or W&B's settings file) and offline when none is. Anything else stands as it is.
    """
    if wanted != "auto":
        return wanted
    settings = saved_settings()
    said = os.environ.get("WANDB_MODE") or settings.get("mode", "")
    return _WORDS.get(said.lower()) or ("online" if _has_key(settings) else "offline")


def _has_key(settings: Mapping[str, str]) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if settings.get("api_key") or settings.get("identity_token_file"):
        return True
    server = os.environ.get("WANDB_BASE_URL") or settings.get("base_url") or _SERVER
    file = Path(os.environ.get("NETRC") or "~/.netrc")
    try:
        found = netrc.netrc(file.expanduser()).authenticators(urlsplit(server).netloc)
    except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])


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
