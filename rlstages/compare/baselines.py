"""What scores are measured against: actions at random, and the expert, in the environments of a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlstages.compare.plan import Plan
from rlstages.episodes import Score
from rlstages.errors import Fault, InputError
from rlstages.experts import showing
from rlstages.recording import Act, record
from rlstages.serialization import from_data, loads, to_data
from rlstages.specs import Environment, Expert
from rlstages.stages import BehaviorCloning
from rlstages.storage.checkpoints import replace_durably

FILE = "baselines.json"
SEED = 3_000_000


@dataclass(frozen=True)
class Baselines:
    """Scores in one environment.

    Attributes:
        random: Of actions drawn at random.
        expert: Of the curriculum's expert, or `None` if it has none, or it cannot play there.
        reason: Why there is no expert's score, as half a sentence, or `None`.
    """

    random: Score
    expert: Score | None
    reason: str | None = None

    def ends(self, measure: str) -> tuple[float, float] | None:
        """Return what counts as 0 and as 1, or `None` if the expert is missing or no better than chance.

        Args:
            measure: `"success"` or `"return"`.
        """
        if self.expert is None:
            return None
        low, high = value_of(self.random, measure), value_of(self.expert, measure)
        return (low, high) if high > low else None


def value_of(score: Score, measure: str) -> float:
    """Return success or return."""
    value = score.success if measure == "success" else score.mean_return
    return float("nan") if value is None else value


def act_at_random(env: gym.Env[Any, Any]) -> Act:
    """Return an 'expert' that draws its actions at random, the same ones every time."""
    env.action_space.seed(SEED)
    return lambda observation: env.action_space.sample()


def measure_baselines(directory: Path, plan: Plan) -> list[Baselines]:
    """Score chance and the expert in every environment of a comparison, once: the file is read when it is there."""
    file = directory / FILE
    if file.is_file():
        try:
            return [Baselines(*map(from_data, entry)) for entry in loads(file.read_bytes())]
        except (InputError, TypeError) as error:
            raise InputError(f"{file} is damaged: {error}; delete it to have it made again.") from error
    experts = [stage.expert for stage in plan.curriculum.stages if isinstance(stage, BehaviorCloning)]
    expert = next((one for one in experts if one is not None), None)
    found = [_measure(plan, environment, index, expert) for index, environment in enumerate(plan.environments)]
    data = [[to_data(b.random, nan_as_null=True), to_data(b.expert, nan_as_null=True), b.reason] for b in found]
    replace_durably(file, json.dumps(data, allow_nan=False).encode())
    return found


def _measure(plan: Plan, environment: Environment, index: int, expert: Expert | None) -> Baselines:
    episodes = plan.episodes
    chance = Expert(f"{__name__}:{act_at_random.__name__}", episodes=episodes)
    at_random = record(environment, chance, act_at_random, SEED, index).score()
    if expert is None:
        return Baselines(at_random, None, "the curriculum names no expert")
    try:
        show = showing(expert, trust_pickle=plan.trust_pickle)
        shown = record(environment, replace(expert, episodes=episodes), show, SEED, index)
    except (InputError, Fault) as error:
        return Baselines(at_random, None, f"the expert does not play there: {error}")
    return Baselines(at_random, shown.score())


def normalized(values: Sequence[float], ends: tuple[float, float]) -> list[float]:
    """Return `(value - random) / (expert - random)`."""
    low, high = ends
    return [(value - low) / (high - low) for value in values]
