"""The outcome of a comparison as files: strict JSON, and tables as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from rlstages.experiments.compare.curve import read_curve
from rlstages.experiments.compare.directory import run_path
from rlstages.experiments.compare.results import Results
from rlstages.experiments.compare.verdict import Conclusion
from rlstages.specs.criteria.baselines import normalized, value_of
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.record import versions

FILES_VERSION = 1
_COLUMNS = ["arm", "seed", "steps", "why", "environment", "episodes", "return", "success", "normalized"]


def write_json(directory: Path, results: Results, verdict: Conclusion) -> Path:
    """Write `compare.json`: everything that was measured and concluded."""
    plan, file = results.plan, directory / "compare.json"
    content = {
        "version": FILES_VERSION,
        "name": plan.name,
        "digest": plan.curriculum.digest,
        "versions": versions(),
        "measure": plan.measure,
        "threshold": plan.threshold,
        "steps": results.steps,
        "seeds": plan.seeds,
        "episodes": plan.episodes,
        "measures": results.measures,
        "environments": [str(environment) for environment in plan.environments],
        "verdict": verdict,
        "failures": results.failures,
        "grid": results.grid,
        "profile_levels": results.levels,
        "baselines": results.baselines,
        "arms": results.arms,
        "contrasts": results.contrasts,
    }
    replace_durably(file, json.dumps(_plain(content), indent=1, allow_nan=False).encode())
    return file


def write_csv(directory: Path, results: Results) -> Path:
    """Write `compare.csv`: one line for every score, so that all of the above can be made again from it."""
    plan, file = results.plan, directory / "compare.csv"
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_COLUMNS)
    for name in plan.arms:
        for seed in plan.seeds:
            for row in read_curve(run_path(directory, name, seed)).rows:
                if row.why == "final" and row.steps not in (None, results.steps):
                    continue
                places = zip(plan.environments, results.baselines, results.measures, row.scores, strict=True)
                for environment, base, measure, score in places:
                    ends = base.ends(measure)
                    scaled = "" if ends is None else normalized(value_of(score, measure), ends)
                    found = [score.episodes, score.mean_return, score.success, scaled]
                    lines.writerow([name, seed, row.cost, row.why, str(environment), *found])
    replace_durably(file, text.getvalue().encode())
    return file


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
