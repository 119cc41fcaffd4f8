"""The base class of stage specs, and the checks of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rlstages.errors import InputError, in_short, require, require_bool, require_int, require_name
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.ppo import PPO
from rlstages.specs.criteria import Criterion
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.serialization import serializable, unusual

_S = TypeVar("_S", bound="StageSpec")
NEEDED = ("name", "environment", "until", "evaluation_episodes", "runner")
"""Attributes that every kind of stage has, the first four as fields."""
DECLARED = {
    "runner": "str",
    "reinforces": "bool",
    "activity": "str",
    "demonstrates": "bool",
    "left_out_in": "frozenset[str]",
}
"""Class attributes of a kind, with their types. As fields, their values would come from a run's files."""
AGENT_SETTINGS = [field.name for field in (*fields(Agent), *fields(PPO))]
"""Settings that stages refuse unless they declare them, because they belong to the agent."""


class StageSpec:
    """The base class of stage specs, which are frozen dataclasses.

    The fields are the settings of the stage. Every kind has the fields `name`, `environment`, `until` (a criterion or
    `None`) and `evaluation_episodes` (number of episodes that score the policy before the stage). A kind that trains on
    rewards also has `max_steps`. The defaults of this class suit a stage that trains without rewards.

    Attributes:
        runner: Class of the runner as `"module:Class"`, which is imported when a run comes to the stage.
        reinforces: Whether it trains on rewards, in environment steps. After a stage that does not, the policy is
            handed
            over to reinforcement learning.
        activity: One or two words for the console while no rollout has been reported.
        demonstrates: Whether it learns from demonstrations, and keeps them for later stages.
        left_out_in: Arms of a comparison that leave it out.
    """

    if TYPE_CHECKING:
        # Only annotated, because values here would become the defaults of the subclasses' fields.
        @property
        def name(self) -> str: ...  # noqa: D102
        @property
        def environment(self) -> Environment: ...  # noqa: D102
        @property
        def until(self) -> Criterion | None: ...  # noqa: D102
        @property
        def evaluation_episodes(self) -> int: ...  # noqa: D102

    def __init_subclass__(cls) -> None:
        # Otherwise, dataclass would make them fields, and report an error at a later field.
        for name, hint in get_annotations(cls).items():
            declared = name not in DECLARED or "ClassVar" in str(hint)
            wanted = f"write '{name}: ClassVar[{DECLARED.get(name)}] = ...', or leave the type out"
            sentence = f"{cls.__name__}: {name} is declared as a field; {wanted}."
            require(declared, sentence, "kind-invalid", cls.__name__, name)
        serializable(cls)

    def __str__(self) -> str:
        demand = f" until {self.until}" if self.until is not None else ""
        return f"{type(self).__name__} in {self.environment}{demand}{unusual(self, 'until')}"

    runner: ClassVar[str]
    reinforces: ClassVar[bool] = False
    activity: ClassVar[str] = "training"
    demonstrates: ClassVar[bool] = False
    left_out_in: ClassVar[frozenset[str]] = frozenset({"scratch"})

    @property
    def environments(self) -> tuple[Environment, ...]:
        """All environments of the stage, for the check of what a run may import (`storage/trust.py`)."""
        return (self.environment,)

    @property
    def experts(self) -> tuple[Expert, ...]:
        """All experts of the stage, for the check of what a run may import."""
        return ()

    @property
    def step_limit(self) -> int | None:
        """Maximum number of environment steps, or `None` if it is not measured in steps."""
        return None

    @property
    def epoch_limit(self) -> int | None:
        """Maximum number of passes over its data, or `None` if it is not measured in passes."""
        return None

    @property
    def goes_on_when_missed(self) -> bool:
        """Whether the run continues with the next stage if this one misses its threshold."""
        return False

    @property
    def remedy(self) -> str:
        """Advice if the stage misses its threshold and has no step limit to raise, as a sentence."""
        return "Change its settings, or ask less of it, and train again."

    @property
    def demonstrations_needed(self) -> str:
        """The setting that needs demonstrations of an earlier stage, as it is written; empty if there is none."""
        return ""

    def in_force(self, agent: Agent) -> dict[str, Any]:
        """Return the settings of the agent that this stage may change, with their values in this stage."""
        return {}

    def with_step_limit(self: _S, steps: int) -> _S:
        """Return the stage with another step limit."""
        limit: dict[str, Any] = {"max_steps": steps}
        return replace(self, **limit)  # type: ignore[type-var]

    def check_place(self, before: Sequence[StageSpec], agent: Agent) -> None:
        """Refuse an impossible place in a curriculum.

        Args:
            before: Stages before this one.
            agent: Agent of the curriculum.

        Raises:
            InputError: If the stage cannot follow those before it.
        """

    def trained_in(self, before: Sequence[StageSpec]) -> tuple[Environment, ...]:
        """Return the environments in which the stage trains on rewards, including rehearsed ones."""
        return (self.environment,) if self.reinforces else ()

    # --- in the arms of a comparison -------------------------------------------------------------------------------

    def possible_after(self: _S, before: Sequence[StageSpec]) -> _S:
        """Return the stage without settings that need earlier stages which an arm leaves out."""
        return self

    def patient(self: _S) -> _S:
        """Return the stage with the setting that the run continues if its threshold is missed."""
        return self

    def unprotected(self: _S, before: Sequence[StageSpec], agent: Agent) -> _S:
        """Return the stage without protections of the hand-over."""
        return self

    def endless(self: _S, before: Sequence[StageSpec], agent: Agent) -> _S:
        """Return a stage that continues the training of this one without end.

        Raises:
            InputError: If this is impossible.
        """
        sentence = f"stage {self.name!r} is a {type(self).__name__}, which cannot be the last of a comparison."
        raise InputError(sentence, "comparison-invalid", f"stage {self.name!r}")


def require_environment(where: str, environment: object) -> None:
    """Refuse a value that is not an `Environment`."""
    sentence = f"{where}: the environment is {environment!r}; wrap it as Environment('module:Id-v0', ...)."
    require(isinstance(environment, Environment), sentence, "setting-type", where, "environment", environment)


def require_criterion(where: str, until: object, optional: bool = False) -> None:
    """Refuse what is no criterion; `None` is one where it is optional."""
    sentence = f"{where}: until is {until!r}; give a criterion such as SuccessThreshold(0.9) or RewardThreshold(200)."
    require(
        isinstance(until, Criterion) or (optional and until is None), sentence, "setting-type", where, "until", until
    )


def require_stage(where: str, number: int, stage: object) -> None:
    """Refuse a value that is not a stage, or whose kind lacks a required attribute.

    Args:
        where: Name of the curriculum, for the error message.
        number: Number of the stage, from 1.
        stage: Value to check.

    Raises:
        InputError: If the value is not a valid stage.
    """
    given = f"{where}: number {number} in stages is {in_short(stage)}"
    kinds = "a StageSpec such as BehaviorCloning(...) or FineTuning(...)"
    if not isinstance(stage, StageSpec):
        raise InputError(f"{given}; each is {kinds}, in one flat list.", "setting-type", where, "stages", stage)
    kind = type(stage).__name__
    lacks = [name for name in NEEDED if not hasattr(stage, name)]
    sentence = f"{where}: {kind} has no {' and no '.join(lacks)}, which every kind of stage needs."
    require(not lacks, sentence, "kind-invalid", where, kind)
    # A field's value would come from a run's files, so a stranger could choose what is imported.
    named = [name for name in DECLARED if name in vars(stage)]
    sentence = f"{where}: {''.join(named[:1])} is a field of {kind}; declare it as a ClassVar."
    require(not named, sentence, "kind-invalid", where, kind)
    frozen = getattr(getattr(stage, "__dataclass_params__", None), "frozen", False)
    sentence = f"{where}: {kind} is no frozen dataclass; write @dataclass(frozen=True) above it."
    require(frozen, sentence, "kind-invalid", where, kind)
    require_name(kind, stage.name)
    _require_answers(f"stage {stage.name!r}", stage)


def _require_answers(where: str, stage: StageSpec) -> None:
    """Refuse attributes and properties of other types than `StageSpec` declares."""
    kind = type(stage).__name__
    require_environment(where, stage.environment)
    require_criterion(where, stage.until, optional=True)
    require_int(where, "evaluation_episodes", stage.evaluation_episodes, least=0)
    runner: object = stage.runner
    given = f"{where}: runner is {in_short(runner)}"
    sentence = f"{given}; give 'module:Class'."
    require(
        isinstance(runner, str) and bool(re.fullmatch(r"[\w.]+:\w+", runner)), sentence, "kind-invalid", where, "runner"
    )
    for name in ("reinforces", "demonstrates", "goes_on_when_missed"):
        require_bool(where, name, getattr(stage, name))
    for name in ("activity", "demonstrations_needed", "remedy"):
        require(
            isinstance(getattr(stage, name), str), f"{where}: {name} of {kind} is no text.", "kind-invalid", where, name
        )
    arms: object = stage.left_out_in
    sentence = f"{where}: left_out_in is {arms!r}; give frozenset({{'scratch'}})."
    require(isinstance(arms, (set, frozenset)), sentence, "kind-invalid", where, "left_out_in")
    for name, part in (("environments", Environment), ("experts", Expert)):
        found = getattr(stage, name)
        ok = isinstance(found, (tuple, list)) and all(isinstance(one, part) for one in found)
        sentence = f"{where}: {name} is {in_short(found)}; give a tuple of {part.__name__}(...)."
        require(ok, sentence, "kind-invalid", where, name)
    for name in ("step_limit", "epoch_limit"):
        if getattr(stage, name) is not None:
            require_int(where, name, getattr(stage, name))
    raised = stage.step_limit is None or "max_steps" in type(stage).__dataclass_fields__  # type: ignore[attr-defined]
    sentence = (
        f"{where}: {kind} has a step_limit, but no field max_steps for `resume --max-steps` to raise; name the field "
        "so, or override with_step_limit."
    )
    require(
        raised or type(stage).with_step_limit is not StageSpec.with_step_limit,
        sentence,
        "kind-invalid",
        where,
        "step_limit",
    )
