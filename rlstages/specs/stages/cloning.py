"""The stage that copies an expert, as frozen data."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Literal

from rlstages.errors import in_short, require, require_choice, require_int, require_name, require_number
from rlstages.specs.criteria import Criterion
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.plain import settle
from rlstages.specs.serialization import unusual
from rlstages.specs.stages.base import AGENT_SETTINGS, StageSpec, require_criterion, require_environment
from rlstages.specs.unknown import refusing_unknown


@refusing_unknown(*AGENT_SETTINGS)
@dataclass(frozen=True)
class BehaviorCloning(StageSpec):
    """Train the learner's policy to act as demonstrations do.

    The loss is the negative log likelihood of the demonstrated actions (Pomerleau 1991, as `imitation` implements
    it). Whole episodes are held out; training stops when their loss has not fallen for `patience` epochs, and the
    best epoch's weights are kept.

    Args:
        name: Shown everywhere; unique in its curriculum.
        environment: Where the expert shows and the clone is scored.
        expert: Who shows. Give this or `demonstrations`.
        demonstrations: A file of recorded episodes (`rlstages demos record` writes them).
        until: What the clone must score before the next stage may start. If it is missed, the run stops and says so,
            unless `on_failure` is `"advance"`.
        on_failure: `"stop"` or `"advance"`.
        max_epochs: Passes over the demonstrations, at most.
        learning_rate: Adam's step size.
        batch_size: Observations per gradient step.
        entropy_weight: Weight of the entropy bonus in the loss.
        l2_weight: Weight of the squared norm of the parameters in the loss.
        held_out: Share of the episodes that is only used to measure.
        patience: Epochs without improvement on the held-out episodes before training stops.
        best: Keep only this many episodes, those of the highest return.
        min_return: Keep only episodes with at least this return.
        min_log_std: Floor of a continuous policy's log standard deviation, as a share of half an action's range. A
            deterministic expert drives it down without limit, and with it the exploration that fine-tuning needs.
        evaluation_episodes: Played before and after cloning to score the policy; 0 plays none.
    """

    runner: ClassVar[str] = "rlstages.stages.cloning:CloningRunner"
    demonstrates: ClassVar[bool] = True
    left_out_in: ClassVar[frozenset[str]] = frozenset({"no-cloning", "scratch"})

    name: str
    environment: Environment
    _: KW_ONLY
    expert: Expert | None = None
    demonstrations: str | os.PathLike[str] | None = None
    until: Criterion | None = None
    on_failure: Literal["stop", "advance"] = "stop"
    max_epochs: int = 30
    learning_rate: float = 1e-3
    batch_size: int = 64
    entropy_weight: float = 1e-3
    l2_weight: float = 0.0
    held_out: float = 0.1
    patience: int = 5
    best: int | None = None
    min_return: float | None = None
    min_log_std: float = -2.0
    evaluation_episodes: int = 48

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or contradict each other."""
        settle(self)
        require_name("BehaviorCloning", self.name)
        where = f"stage {self.name!r}"
        require_environment(where, self.environment)
        if isinstance(self.demonstrations, os.PathLike):
            object.__setattr__(self, "demonstrations", os.fspath(self.demonstrations))
        require(
            (self.expert is None) != (self.demonstrations is None),
            f"{where}: give either expert=Expert(...) or demonstrations='file', and not both.",
        )
        named = getattr(self.expert, "__name__", None) or in_short(self.expert)
        require(
            self.expert is None or isinstance(self.expert, Expert),
            f"{where}: expert must be an Expert(...); write Expert({named}).",
        )
        require(
            self.demonstrations is None or (isinstance(self.demonstrations, str) and bool(self.demonstrations)),
            f"{where}: demonstrations is {self.demonstrations!r}; give the path of a file.",
        )
        require_criterion(where, self.until, optional=True)
        require_choice(where, "on_failure", self.on_failure, ["stop", "advance"])
        require_int(where, "max_epochs", self.max_epochs)
        require_number(where, "learning_rate", self.learning_rate, above=0.0)
        require_int(where, "batch_size", self.batch_size)
        require_number(where, "entropy_weight", self.entropy_weight, least=0.0)
        require_number(where, "l2_weight", self.l2_weight, least=0.0)
        require_number(where, "held_out", self.held_out, least=0.0, most=0.9)
        require_int(where, "patience", self.patience)
        if self.best is not None:
            require_int(where, "best", self.best)
        if self.min_return is not None:
            require_number(where, "min_return", self.min_return)
        require_number(where, "min_log_std", self.min_log_std)
        require_int(where, "evaluation_episodes", self.evaluation_episodes, least=0)

    @property
    def source(self) -> str:
        """The expert or the file that it copies, as it was written."""
        return str(self.expert.source if self.expert else self.demonstrations)

    @property
    def shower(self) -> str:
        """Who shows, at the beginning of a sentence."""
        if self.expert is not None:
            return f"The expert {self.expert.name}"
        return os.path.basename(str(self.demonstrations))

    @property
    def experts(self) -> tuple[Expert, ...]:
        """The one that it asks, if it asks any."""
        return () if self.expert is None else (self.expert,)

    @property
    def epoch_limit(self) -> int:
        """Passes over the demonstrations after which it ends."""
        return self.max_epochs

    @property
    def goes_on_when_missed(self) -> bool:
        """Whether the next stage follows where this one misses its threshold."""
        return self.on_failure == "advance"

    def patient(self) -> BehaviorCloning:
        """Return it so that the next stage follows where its threshold is missed."""
        return replace(self, on_failure="advance")

    def __str__(self) -> str:
        source = str(self.expert) if self.expert else self.demonstrations
        demand = f", until {self.until}" if self.until else ""
        settings = unusual(self, "expert", "demonstrations", "until")
        return f"clone {source} in {self.environment}{demand}{settings}"
