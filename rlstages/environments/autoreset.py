"""Autoreset modes of vector environments, for all versions of gymnasium."""

from __future__ import annotations

from enum import Enum
from typing import Any

try:
    from gymnasium.vector import AutoresetMode

    DISABLED: Any = AutoresetMode.DISABLED
except ImportError:  # gymnasium 0.29 has the convention, but no name for it
    DISABLED = "Disabled"


class Autoreset(Enum):
    """What a vector environment does after the end of an episode (https://farama.org/Vector-Autoreset-Mode)."""

    DISABLED = "disabled"
    """Nothing: it is reset by `reset(seed=..., options={"reset_mask": mask})`."""
    NEXT_STEP = "nextstep"
    """It resets the environment in the next step, whatever the action."""
    OTHER = "other"
    """Something else, such as a reset in the same step, or it does not say, as in gymnasium before 1.1."""


def autoreset_of(batched: Any) -> Autoreset:
    """Return the mode of a batch, or of its class."""
    mode = (getattr(batched, "metadata", None) or {}).get("autoreset_mode")
    said = str(getattr(mode, "value", mode)).lower().replace("_", "").replace("-", "")
    known = {mode.value: mode for mode in Autoreset}
    return known.get(said, Autoreset.OTHER)
