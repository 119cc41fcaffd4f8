"""The baselines of a comparison's scores, measured once and kept in a file."""

from __future__ import annotations

import json
from pathlib import Path

from rlstages.errors import InputError
from rlstages.experiments.compare.plan import Plan
from rlstages.play.chance_and_expert import expert_of, measure_baselines
from rlstages.specs.criteria.baselines import Baselines
from rlstages.specs.serialization import from_data, loads, to_data
from rlstages.storage.checkpoints import replace_durably

BASELINES_FILE = "baselines.json"


def baselines_of(directory: Path, plan: Plan) -> list[Baselines]:
    """Return the scores of random actions and the expert in every environment, from the file if it exists."""
    file = directory / BASELINES_FILE
    if file.is_file():
        try:
            return [Baselines(*map(from_data, entry)) for entry in loads(file.read_bytes())]
        except (InputError, TypeError) as error:
            raise InputError(
                f"{file} is damaged: {error}; delete it to have it made again.", "file-damaged", file
            ) from error
    expert = expert_of(plan.curriculum.stages)
    found = [
        measure_baselines(environment, expert, plan.episodes, index, plan.trust_pickle)
        for index, environment in enumerate(plan.environments)
    ]
    data = [[to_data(b.random, nan_as_null=True), to_data(b.expert, nan_as_null=True), b.reason] for b in found]
    replace_durably(file, json.dumps(data, allow_nan=False).encode())
    return found
