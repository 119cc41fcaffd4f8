"""The arms of a comparison, each a pure function from a curriculum to a curriculum.

Every arm ends by training on in the last variant: `compare` stops all of them at the same number of environment steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rlstages.errors import InputError, nearest, require
from rlstages.specs.criteria import Criterion
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.stages.base import StageSpec
from rlstages.specs.stages.fine_tuning import UNLIMITED_STEPS


def staged(curriculum: Curriculum) -> Curriculum:
    """Return all stages as they are."""
    return _going_on(curriculum, curriculum.stages)


def no_cloning(curriculum: Curriculum) -> Curriculum:
    """Return the fine-tuning stages alone, which begin with a random network."""
    return _going_on(curriculum, _without(curriculum, "no-cloning"))


def no_curriculum(curriculum: Curriculum) -> Curriculum:
    """Return the stages without rewards, followed by only the last stage that trains on rewards."""
    return _going_on(curriculum, [*_without(curriculum, "no-curriculum"), last_variant(curriculum)])


def scratch(curriculum: Curriculum) -> Curriculum:
    """Return the last fine-tuning stage alone, which begins with a random network."""
    return _going_on(curriculum, [last_variant(curriculum)])


def clone_only(curriculum: Curriculum) -> Curriculum:
    """Return only the stages without rewards."""
    return _with(curriculum, _without(curriculum, "clone-only"))


def naive_handover(curriculum: Curriculum) -> Curriculum:
    """Return all stages with the protections of the hand-over off.

    No critic fit, no KL term, no demonstration loss, no guard, no rehearsal, no return to an earlier stage; and the
    first fine-tuning stage after cloning starts with the exploration noise of a policy that is built anew,
    `Agent.log_std_init`, as it does where a clone's network is put into a new PPO. Gates, observation statistics and
    the optimiser are as in `staged`.
    """
    stages, agent = curriculum.stages, curriculum.agent
    return _going_on(curriculum, [stage.unprotected(stages[:index], agent) for index, stage in enumerate(stages)])


Arm = Callable[[Curriculum], Curriculum]
ARMS: dict[str, Arm] = {
    "staged": staged,
    "no-cloning": no_cloning,
    "no-curriculum": no_curriculum,
    "scratch": scratch,
    "clone-only": clone_only,
    "naive-handover": naive_handover,
}
MEANINGS = {
    "staged": "the curriculum as it is",
    "no-cloning": "the same stages without cloning, from a random network",
    "no-curriculum": "cloning, then the last variant at once",
    "scratch": "the last variant alone, from a random network",
    "clone-only": "cloning alone; trained no further",
    "naive-handover": "the curriculum with no critic fit, KL anchor, demonstration loss, guard, rehearsal or return, "
    "and noise reset",
}


def last_variant(curriculum: Curriculum) -> StageSpec:
    """Return the last stage that trains on rewards.

    Raises:
        InputError: If there is no such stage.
    """
    tuning = [stage for stage in curriculum.stages if stage.reinforces]
    sentence = f"{curriculum.name!r} has no fine-tuning stage, so there is nothing to compare."
    require(bool(tuning), sentence, "comparison-invalid", curriculum.name)
    return tuning[-1]


def last_gate(curriculum: Curriculum) -> Criterion:
    """Return the criterion of the last stage that trains on rewards.

    Raises:
        InputError: If there is nothing that all arms can be asked for.
    """
    last = last_variant(curriculum)
    if last.until is None:
        sentence = f"stage {last.name!r} has no threshold that arms could be compared by; give it one: until=..."
        raise InputError(sentence, "comparison-invalid", f"stage {last.name!r}", "until")
    return last.until


def is_compared(curriculum: Curriculum) -> bool:
    """Return whether a curriculum is an arm that continues until the comparison's steps are spent."""
    last = curriculum.stages[-1]
    return last.step_limit is not None and last.step_limit >= UNLIMITED_STEPS


def make_arms(curriculum: Curriculum, names: Sequence[str] | None = None) -> dict[str, Curriculum]:
    """Return the arms of a curriculum by name.

    Args:
        curriculum: What all are made from.
        names: Names of arms. By default, all that differ from the arms before them.

    Raises:
        InputError: If a name is unknown, or the curriculum has nothing that the arm could leave out.
    """
    last_variant(curriculum)
    prepared = any(not stage.reinforces for stage in curriculum.stages)
    unwanted = set() if names is not None or prepared else {"no-curriculum", "clone-only", "naive-handover"}
    arms: dict[str, Curriculum] = {}
    for name in names if names is not None else [name for name in ARMS if name not in unwanted]:
        require(
            name in ARMS,
            f"There is no arm {name!r}; known are {', '.join(ARMS)}.{nearest(name, ARMS)}",
            "name-unknown",
            name="arm",
            value=name,
        )
        try:
            arm = ARMS[name](curriculum)
        except InputError as error:
            sentence = f"Arm {name!r}: {error} Or leave this arm out: --arms takes the names of others."
            raise error.retold(sentence, where=f"arm {name!r}") from None
        if names is None and arm in arms.values():
            continue
        same = name != "staged" and arm == staged(curriculum)
        require(
            not same,
            f"Arm {name!r} would be 'staged' again: {curriculum.name!r} has nothing that it leaves out.",
            "comparison-invalid",
            f"arm {name!r}",
        )
        arms[name] = arm
    return arms


def _without(curriculum: Curriculum, arm: str) -> list[StageSpec]:
    return [stage for stage in curriculum.stages if arm not in stage.left_out_in]


def _going_on(curriculum: Curriculum, stages: Sequence[StageSpec]) -> Curriculum:
    """Append a stage that continues to train in the last variant without end."""
    return _with(curriculum, [*stages, last_variant(curriculum).endless(stages, curriculum.agent)])


def _with(curriculum: Curriculum, stages: Sequence[StageSpec]) -> Curriculum:
    """Replace the stages, and let the run continue if one misses its threshold, because an arm has steps to spend."""
    require(bool(stages), "it would have no stage.", "comparison-invalid")
    kept = [stage.possible_after(stages[:index]).patient() for index, stage in enumerate(stages)]
    return replace(curriculum, stages=tuple(kept))
