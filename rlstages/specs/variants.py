"""The distinct environments of a curriculum, with names, as in retention matrices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rlstages.specs.criteria.criterion import Measure
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.stages.base import StageSpec


@dataclass(frozen=True)
class Variant:
    """An environment in which policies are scored.

    Attributes:
        name: Name for tables: the first stage that fine-tunes there, or else clones there; else the environment itself.
        environment: Environment to play in.
        measure: Measure of the stage's criterion, or of the last stage's criterion if it is held out.
        index: Index from 0.
        held_out: Whether it is never trained in.
    """

    name: str
    environment: Environment
    measure: Measure
    index: int
    held_out: bool


def is_scored_next(curriculum: Curriculum, stage: int, environment: Environment) -> bool:
    """Return whether the next stage scores the policy in an environment before it begins."""
    following = curriculum.stages[stage + 1 : stage + 2]
    return any(spec.environment == environment and spec.evaluation_episodes > 0 for spec in following)


def variants_of(curriculum: Curriculum) -> tuple[Variant, ...]:
    """Return the environments of all stages in order, followed by the held-out ones."""
    stages: dict[Environment, StageSpec] = {}
    for stage in sorted(curriculum.stages, key=lambda stage: not stage.reinforces):
        stages.setdefault(stage.environment, stage)
    names: Counter[str] = Counter()
    variants = []
    environments = [*(stage.environment for stage in curriculum.stages), *curriculum.held_out]
    for index, environment in enumerate(dict.fromkeys(environments)):
        stage = stages.get(environment, curriculum.stages[-1])
        name = stage.name if environment in stages else str(environment)
        names[name] += 1
        # Environments that differ only in their wrappers look the same.
        name += f" ({names[name]})" if names[name] > 1 else ""
        measure: Measure = "success" if stage.until is None else stage.until.measure
        variants.append(Variant(name, environment, measure, index, environment not in stages))
    return tuple(variants)
