"""What the specs of all stages check alike."""

from __future__ import annotations

from dataclasses import fields

from rlstages.errors import require
from rlstages.specs.agent import Agent
from rlstages.specs.criteria import Criterion
from rlstages.specs.environment import Environment

AGENT_SETTINGS = [field.name for field in fields(Agent)]
"""What no stage takes, because all stages share it."""


def require_environment(where: str, environment: object) -> None:
    """Refuse what is no `Environment`."""
    require(
        isinstance(environment, Environment),
        f"{where}: the environment is {environment!r}; wrap it as Environment('module:Id-v0', ...).",
    )


def require_criterion(where: str, until: object, optional: bool = False) -> None:
    """Refuse what is no criterion; `None` is one where it is optional."""
    require(
        isinstance(until, Criterion) or (optional and until is None),
        f"{where}: until is {until!r}; give a criterion such as SuccessThreshold(0.9) or RewardThreshold(200).",
    )
