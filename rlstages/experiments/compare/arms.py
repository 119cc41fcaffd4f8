"""The arms of a comparison, each a pure function from a curriculum to a curriculum.

Every arm ends by training on in the last variant: `compare` stops all of them at the same number of environment steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rlstages.errors import InputError, nearest, require
from rlstages.specs.agent import Linear
from rlstages.specs.criteria import RewardThreshold
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.stages.cloning import BehaviorCloning
from rlstages.specs.stages.fine_tuning import UNLIMITED_STEPS, FineTuning
from rlstages.specs.stages.sequence import Stage, earlier_environments, undemonstrated

UNREACHABLE = RewardThreshold(1e300)
GOING_ON = "going on"
UNPROTECTED: dict[str, Any] = {"critic_fit_steps": 0, "anchor_kl": 0.0, "demonstration_loss": 0.0}
"""Settings of a fine-tuning stage whose updates nothing holds back."""


def staged(curriculum: Curriculum) -> Curriculum:
    """Return all stages as they are."""
    return _going_on(curriculum, curriculum.stages)


def no_cloning(curriculum: Curriculum) -> Curriculum:
    """Return the same fine-tuning stages, begun with a random network."""
    return _going_on(curriculum, [stage for stage in curriculum.stages if isinstance(stage, FineTuning)])


def no_curriculum(curriculum: Curriculum) -> Curriculum:
    """Return the cloning stages, and of the fine-tuning stages only the last."""
    return _going_on(curriculum, [*_cloning(curriculum), last_variant(curriculum)])


def scratch(curriculum: Curriculum) -> Curriculum:
    """Return the last fine-tuning stage alone, begun with a random network."""
    return _going_on(curriculum, [last_variant(curriculum)])


def clone_only(curriculum: Curriculum) -> Curriculum:
    """Return the cloning stages alone."""
    return _with(curriculum, _cloning(curriculum))


def naive_handover(curriculum: Curriculum) -> Curriculum:
    """Return all stages with the protections of the hand-over off.

    No critic fit, no KL term, no demonstration loss, no guard, no rehearsal, no return to an earlier stage; and the
    first fine-tuning stage after cloning starts with the exploration noise of a policy that is built anew,
    `Agent.log_std_init`, as it does where a clone's network is put into a new PPO. Gates, observation statistics and
    the optimiser are as in `staged`.
    """
    stages: list[Stage] = []
    for stage in curriculum.stages:
        if isinstance(stage, FineTuning):
            cloned = bool(stages) and isinstance(stages[-1], BehaviorCloning)
            noise = curriculum.agent.log_std_init if cloned else stage.exploration
            guards = {"explore_again": False, "guard_steps": 0, "on_collapse": "go on"}
            stage = replace(stage, exploration=noise, **{**UNPROTECTED, **guards, "rehearse": 0.0})
        stages.append(stage)
    return _going_on(curriculum, stages)


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


def last_variant(curriculum: Curriculum) -> FineTuning:
    """Return the last fine-tuning stage.

    Raises:
        InputError: If there is none.
    """
    tuning = [stage for stage in curriculum.stages if isinstance(stage, FineTuning)]
    require(bool(tuning), f"{curriculum.name!r} has no fine-tuning stage, so there is nothing to compare.")
    return tuning[-1]


def is_compared(curriculum: Curriculum) -> bool:
    """Whether it is an arm that goes on until its comparison's steps are spent."""
    last = curriculum.stages[-1]
    return isinstance(last, FineTuning) and last.max_steps >= UNLIMITED_STEPS


def make_arms(curriculum: Curriculum, names: Sequence[str] | None = None) -> dict[str, Curriculum]:
    """Return the arms of a curriculum by name.

    Args:
        curriculum: What all are made from.
        names: Which; default all that differ from those before them.

    Raises:
        InputError: If a name is unknown, or the curriculum has nothing that the arm could leave out.
    """
    last_variant(curriculum)
    unwanted = set() if names is not None or _cloning(curriculum) else {"no-curriculum", "clone-only", "naive-handover"}
    arms: dict[str, Curriculum] = {}
    for name in names if names is not None else [name for name in ARMS if name not in unwanted]:
        require(name in ARMS, f"There is no arm {name!r}; known are {', '.join(ARMS)}.{nearest(name, ARMS)}")
        try:
            arm = ARMS[name](curriculum)
        except InputError as error:
            raise InputError(
                f"Arm {name!r}: {error} Or leave this arm out: --arms takes the names of others."
            ) from None
        if names is None and arm in arms.values():
            continue
        same = name != "staged" and arm == staged(curriculum)
        require(not same, f"Arm {name!r} would be 'staged' again: {curriculum.name!r} has nothing that it leaves out.")
        arms[name] = arm
    return arms


def _cloning(curriculum: Curriculum) -> list[Stage]:
    return [stage for stage in curriculum.stages if isinstance(stage, BehaviorCloning)]


def _going_on(curriculum: Curriculum, stages: Sequence[Stage]) -> Curriculum:
    """Append a stage that trains in the last variant without end, as the stage before left off.

    Nothing is handed over there, so there is no critic fit, no KL term and no demonstration loss; schedules stay at
    their ends, or where these are 0, which no setting may be, at what the stage's last update has.
    """
    last = last_variant(curriculum)
    rollout = curriculum.agent.rollout_steps
    progress = (last.max_steps - 1) // rollout * rollout / last.max_steps
    schedules = {**curriculum.agent.given(), **last.given()}
    settings: dict[str, Any] = {
        # A schedule that is 0 all along stays one.
        name: value.end or value.at(progress) or value
        for name, value in schedules.items()
        if isinstance(value, Linear)
    }
    more = replace(
        last,
        name=f"{GOING_ON} in {last.name}"[:80].strip(),
        until=last.until & UNREACHABLE,
        max_steps=UNLIMITED_STEPS,
        rehearse=next(stage.rehearse for stage in reversed(stages) if isinstance(stage, FineTuning)),
        on_collapse="go on",
        exploration=None,
        evaluation_episodes=0,
        **UNPROTECTED,
        **settings,
    )
    return _with(curriculum, [*stages, more])


def _with(curriculum: Curriculum, stages: Sequence[Stage]) -> Curriculum:
    require(bool(stages), "it would have no stage.")
    kept = [_possible(stages, index) for index in range(len(stages))]
    return replace(curriculum, stages=tuple(map(_patient, kept)))


def _possible(stages: Sequence[Stage], index: int) -> Stage:
    """Take from a stage what needs stages before it that an arm has left out."""
    stage = stages[index]
    if not isinstance(stage, FineTuning):
        return stage
    rehearse = stage.rehearse if earlier_environments(stages, index) else 0.0
    follows = index > 0 and isinstance(stages[index - 1], FineTuning)
    demonstration_loss = 0.0 if stage in undemonstrated(stages) else stage.demonstration_loss
    on_collapse = stage.on_collapse if follows else "go on"
    return replace(stage, rehearse=rehearse, on_collapse=on_collapse, demonstration_loss=demonstration_loss)


def _patient(stage: Stage) -> Stage:
    """Let a stage that misses its threshold be followed by the next: an arm has steps to spend."""
    if isinstance(stage, FineTuning):
        return replace(stage, on_timeout="advance")
    return replace(stage, on_failure="advance")
