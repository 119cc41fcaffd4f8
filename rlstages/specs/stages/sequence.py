"""Relations between the stages of a curriculum."""

from __future__ import annotations

from collections.abc import Sequence

from rlstages.errors import InputError
from rlstages.specs.criteria import Criterion
from rlstages.specs.environment import Environment
from rlstages.specs.stages.base import StageSpec


def gate_after(stages: Sequence[StageSpec], index: int) -> Criterion | None:
    """Return the next criterion for a cloned policy: of its own stage, or of the next one in the same environment."""
    own = stages[index].until
    if own is not None or index + 1 == len(stages) or stages[index + 1].environment != stages[index].environment:
        return own
    return stages[index + 1].until


def earlier_environments(before: Sequence[StageSpec], environment: Environment) -> list[Environment]:
    """Return the distinct environments of earlier stages, except the given one, the latest first."""
    earlier = dict.fromkeys(stage.environment for stage in reversed(before))
    return [other for other in earlier if other != environment]


def undemonstrated(stages: Sequence[StageSpec]) -> list[StageSpec]:
    """Return the stages that need demonstrations and have no earlier stage that provides them."""
    first = next((index for index, stage in enumerate(stages) if stage.demonstrates), len(stages))
    return [stage for stage in stages[:first] if stage.demonstrations_needed]


def refuse_undemonstrated(stages: Sequence[StageSpec]) -> None:
    """Refuse a stage that needs demonstrations if no earlier stage provides them."""
    for stage in undemonstrated(stages):
        sentence = (
            f"stage {stage.name!r}: {stage.demonstrations_needed}, but no stage before it learns from demonstrations, "
            "as BehaviorCloning does; add one, start from a run that has such a stage, or leave it out."
        )
        raise InputError(sentence, "stage-order", f"stage {stage.name!r}")
