"""What a run's `config` says at Weights & Biases: one flat level, so that every value can be a filter or a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlstages.events import RunStarted
from rlstages.events.privacy import without_paths
from rlstages.specs.agent import Agent
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.serialization import TAG, dumps, to_data
from rlstages.specs.stages.base import StageSpec

_ONLY = [("type", "Agent"), ("type", "Environment"), ("type", "Expert")]


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
    return {**to_data(agent), **algorithm, "algorithm": algorithm.pop(TAG)}


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
