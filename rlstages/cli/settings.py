"""All settings of agents, algorithms and stages: a page for people, and a JSON schema for programs."""

from __future__ import annotations

from typing import Any

from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.base import algorithm_named, known_algorithms
from rlstages.specs.settings import listing_of, schema_of
from rlstages.specs.stages.cloning import BehaviorCloning
from rlstages.specs.stages.fine_tuning import FineTuning


def settings_page() -> str:
    """Return all settings as Markdown; docs/settings.md is this text."""
    parts = ["# Settings", "`rlstages settings` prints this page, and with `--json` a JSON schema."]
    for cls in _specs():
        first = (cls.__doc__ or "").partition("\n")[0]
        parts += [f"## {cls.__name__}", first, listing_of(cls)]
    return "\n\n".join(parts) + "\n"


def settings_schema() -> dict[str, Any]:
    """Return the JSON schemas (draft 2020-12) of all settings, by class."""
    return {cls.__name__: schema_of(cls) for cls in _specs()}


def _specs() -> list[type]:
    return [Agent, *map(algorithm_named, known_algorithms()), BehaviorCloning, FineTuning]
