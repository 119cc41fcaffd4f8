"""What everyone else needs to know of a stage, whatever its kind."""

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
"""What every kind of stage has, the first four as fields."""
DECLARED = {
    "runner": "str",
    "reinforces": "bool",
    "activity": "str",
    "demonstrates": "bool",
    "left_out_in": "frozenset[str]",
}
"""Class attributes of a kind, with their types: as fields, a run's files would say what they are."""
AGENT_SETTINGS = [field.name for field in (*fields(Agent), *fields(PPO))]
"""What no stage takes but where it says so, because all stages share it."""


class StageSpec:
    """A kind of stage: a frozen dataclass that derives from this class, and says what it needs and leaves behind.

    Its fields are its settings. It has the fields `name`, `environment`, `until` (a criterion or `None`) and
    `evaluation_episodes` (how many score the policy before it begins). A kind that trains by reward has `max_steps`
    besides. What a kind does not override is as it is for a stage that prepares a policy.

    Attributes:
        runner: What carries it out, as `"module:Class"`, which is imported when a run comes to the stage.
        reinforces: Whether it trains by reward, in environment steps. After one that does not, the policy is handed
            over to reinforcement learning.
        activity: What the console says it does, in a word or two, while it is under way and nothing closer is known.
        demonstrates: Whether it learns from demonstrations, and keeps them for later stages.
        left_out_in: Arms of a comparison that leave it out.
    """

    if TYPE_CHECKING:
        # Fields of the kinds; as attributes of this class they would be the fields' defaults.
        @property
        def name(self) -> str: ...  # noqa: D102
        @property
        def environment(self) -> Environment: ...  # noqa: D102
        @property
        def until(self) -> Criterion | None: ...  # noqa: D102
        @property
        def evaluation_episodes(self) -> int: ...  # noqa: D102

    def __init_subclass__(cls) -> None:
        # dataclass would take them for fields, and blame a field that comes after them.
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
        """All that it makes; a run that somebody else made may name only some (`storage/trust.py`)."""
        return (self.environment,)

    @property
    def experts(self) -> tuple[Expert, ...]:
        """All that it asks; a run that somebody else made may name only some."""
        return ()

    @property
    def step_limit(self) -> int | None:
        """Environment steps after which it ends, or `None` where it is not counted in these."""
        return None

    @property
    def epoch_limit(self) -> int | None:
        """Passes over its data after which it ends, or `None` where it is not counted in these."""
        return None

    @property
    def goes_on_when_missed(self) -> bool:
        """Whether the next stage follows where this one misses its threshold."""
        return False

    @property
    def remedy(self) -> str:
        """What a person may do where it has missed its threshold, and has no limit of steps to raise; a sentence."""
        return "Change its settings, or ask less of it, and train again."

    @property
    def demonstrations_needed(self) -> str:
        """The setting that needs demonstrations of an earlier stage, as it is written; empty if none does."""
        return ""

    def in_force(self, agent: Agent) -> dict[str, Any]:
        """Return the agent's settings as they are in this stage, as far as it has a say in them."""
        return {}

    def with_step_limit(self: _S, steps: int) -> _S:
        """Return it with another limit of environment steps, where it is counted in these."""
        limit: dict[str, Any] = {"max_steps": steps}
        return replace(self, **limit)  # type: ignore[type-var]

    def check_place(self, before: Sequence[StageSpec], agent: Agent) -> None:
        """Refuse its place in a curriculum.

        Args:
            before: The stages before it.
            agent: Whose settings it has to fit.

        Raises:
            InputError: If it cannot follow them.
        """

    def trained_in(self, before: Sequence[StageSpec]) -> tuple[Environment, ...]:
        """Return the environments that its policy learns in by reward, those of the stages before it included."""
        return (self.environment,) if self.reinforces else ()

    # --- in the arms of a comparison -------------------------------------------------------------------------------

    def possible_after(self: _S, before: Sequence[StageSpec]) -> _S:
        """Return it without what needs stages before it that an arm has left out."""
        return self

    def patient(self: _S) -> _S:
        """Return it so that the next stage follows where its threshold is missed."""
        return self

    def unprotected(self: _S, before: Sequence[StageSpec], agent: Agent) -> _S:
        """Return it with nothing that holds its updates back, or takes them back."""
        return self

    def endless(self: _S, before: Sequence[StageSpec], agent: Agent) -> _S:
        """Return a stage that trains on where this one ends, without end.

        Raises:
            InputError: If it cannot.
        """
        sentence = f"stage {self.name!r} is a {type(self).__name__}, which cannot be the last of a comparison."
        raise InputError(sentence, "comparison-invalid", f"stage {self.name!r}")


def require_environment(where: str, environment: object) -> None:
    """Refuse what is no `Environment`."""
    sentence = f"{where}: the environment is {environment!r}; wrap it as Environment('module:Id-v0', ...)."
    require(isinstance(environment, Environment), sentence, "setting-type", where, "environment", environment)


def require_criterion(where: str, until: object, optional: bool = False) -> None:
    """Refuse what is no criterion; `None` is one where it is optional."""
    sentence = f"{where}: until is {until!r}; give a criterion such as SuccessThreshold(0.9) or RewardThreshold(200)."
    require(
        isinstance(until, Criterion) or (optional and until is None), sentence, "setting-type", where, "until", until
    )


def require_stage(where: str, number: int, stage: object) -> None:
    """Refuse what is no stage, and a stage of a kind that does not say what others ask of every kind.

    Args:
        where: Of the curriculum.
        number: Of the stage in it, from 1.
        stage: What was given.

    Raises:
        InputError: If it is none.
    """
    given = f"{where}: number {number} in stages is {in_short(stage)}"
    kinds = "a StageSpec such as BehaviorCloning(...) or FineTuning(...)"
    if not isinstance(stage, StageSpec):
        raise InputError(f"{given}; each is {kinds}, in one flat list.", "setting-type", where, "stages", stage)
    kind = type(stage).__name__
    lacks = [name for name in NEEDED if not hasattr(stage, name)]
    sentence = f"{where}: {kind} has no {' and no '.join(lacks)}, which every kind of stage needs."
    require(not lacks, sentence, "kind-invalid", where, kind)
    # As a field it would be read from a run's files, and what a stranger writes there be imported.
    named = [name for name in DECLARED if name in vars(stage)]
    sentence = f"{where}: {''.join(named[:1])} is a field of {kind}; declare it as a ClassVar."
    require(not named, sentence, "kind-invalid", where, kind)
    frozen = getattr(getattr(stage, "__dataclass_params__", None), "frozen", False)
    sentence = f"{where}: {kind} is no frozen dataclass; write @dataclass(frozen=True) above it."
    require(frozen, sentence, "kind-invalid", where, kind)
    require_name(kind, stage.name)
    _require_answers(f"stage {stage.name!r}", stage)


def _require_answers(where: str, stage: StageSpec) -> None:
    """Refuse answers of other types than `StageSpec` says."""
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
