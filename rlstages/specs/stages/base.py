"""What everyone else needs to know of a stage, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rlstages.errors import InputError, require
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.ppo import PPO
from rlstages.specs.criteria import Criterion
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.serialization import serializable

S = TypeVar("S", bound="StageSpec")
NEEDED = ("name", "environment", "until", "evaluation_episodes", "runner")
"""What every kind of stage has, the first four as fields."""
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
        serializable(cls)

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
    def demonstrations_needed(self) -> str:
        """The setting that needs demonstrations of an earlier stage, as it is written; empty if none does."""
        return ""

    def in_force(self, agent: Agent) -> dict[str, Any]:
        """Return the agent's settings as they are in this stage, as far as it has a say in them."""
        return {}

    def with_step_limit(self: S, steps: int) -> S:
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

    def possible_after(self: S, before: Sequence[StageSpec]) -> S:
        """Return it without what needs stages before it that an arm has left out."""
        return self

    def patient(self: S) -> S:
        """Return it so that the next stage follows where its threshold is missed."""
        return self

    def unprotected(self: S, before: Sequence[StageSpec], agent: Agent) -> S:
        """Return it with nothing that holds its updates back, or takes them back."""
        return self

    def endless(self: S, before: Sequence[StageSpec], agent: Agent) -> S:
        """Return a stage that trains on where this one ends, without end.

        Raises:
            InputError: If it cannot.
        """
        raise InputError(f"stage {self.name!r} is a {type(self).__name__}, which cannot be the last of a comparison.")


def require_environment(where: str, environment: object) -> None:
    """Refuse what is no `Environment`."""
    require(
        isinstance(environment, Environment),
        f"{where}: the environment is {environment!r}; wrap it as Environment('module:Id-v0', ...).",
    )


def require_criterion(where: str, until: object, optional: bool = False) -> None:
    """Refuse what is no criterion; `None` is one where it is optional."""
    require(
        isinstance(until, Criterion) or (optional and until is None),
        f"{where}: until is {until!r}; give a criterion such as SuccessThreshold(0.9) or RewardThreshold(200).",
    )
