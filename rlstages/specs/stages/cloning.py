"""Cloning stages, as frozen data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar, Literal

from rlstages.errors import in_short, require, require_name
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.base import CLONING, AlgorithmSpec
from rlstages.specs.criteria import Criterion
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.plain import settle
from rlstages.specs.serialization import unusual
from rlstages.specs.settings import about, check_settings, documented, setting
from rlstages.specs.stages.base import AGENT_SETTINGS, StageSpec, require_criterion, require_environment
from rlstages.specs.unknown import refusing_unknown


@refusing_unknown(*AGENT_SETTINGS)
@documented
@dataclass(frozen=True)
class BehaviorCloning(StageSpec):
    """Train the policy to imitate demonstrations (behaviour cloning).

    The loss is the negative log likelihood of the demonstrated actions (Pomerleau 1991, as implemented by `imitation`).
    Some episodes are used for validation. Training stops when their loss has not fallen for `patience` epochs, and the
    weights of the best epoch are kept.
    """

    runner: ClassVar[str] = "rlstages.stages.cloning:CloningRunner"
    activity: ClassVar[str] = "cloning"
    demonstrates: ClassVar[bool] = True
    left_out_in: ClassVar[frozenset[str]] = frozenset({"no-cloning", "scratch"})

    name: str = field(metadata=about("Name of the stage in all output; unique in its curriculum."))
    environment: Environment = field(metadata=about("Environment of the expert, in which the clone is scored."))
    _: KW_ONLY
    expert: Expert | None = setting(None, "Expert to clone. Give this or `demonstrations`.")
    demonstrations: str | os.PathLike[str] | None = setting(
        None, "File of recorded episodes to clone (`rlstages demos record` writes such files)."
    )
    until: Criterion | None = setting(
        None,
        "Criterion that the clone must meet before the next stage may start. If it does not, the run stops and "
        "says so, unless `on_failure` is `advance`.",
    )
    on_failure: Literal["stop", "advance"] = setting(
        "stop", "What to do if the clone does not meet `until`: `stop` the run, or `advance` to the next stage."
    )
    max_epochs: int = setting(30, "Maximum number of passes over the demonstrations.", least=1)
    learning_rate: float = setting(1e-3, "Learning rate of Adam.", above=0.0)
    batch_size: int = setting(64, "Observations per minibatch.", least=1)
    entropy_weight: float = setting(1e-3, "Weight of the entropy bonus in the loss.", least=0.0)
    l2_weight: float = setting(0.0, "Weight of the squared norm of the parameters in the loss.", least=0.0)
    held_out: float = setting(0.1, "Share of the episodes that is used only for validation.", least=0.0, most=0.9)
    patience: int = setting(
        5, "Training stops after this many epochs without a lower loss on the validation episodes.", least=1
    )
    best: int | None = setting(None, "Keep only this many episodes, those with the highest return.", least=1)
    min_return: float | None = setting(None, "Keep only episodes with at least this return.")
    min_log_std: float = setting(
        -2.0,
        "Lower bound of a continuous policy's log standard deviation, for actions scaled to [-1, 1]. Without "
        "it, a deterministic expert would drive the standard deviation to 0, and fine-tuning would not explore.",
    )
    evaluation_episodes: int = setting(
        48, "Number of episodes that score the policy, before and after cloning; 0 for none.", least=0
    )

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or contradict each other."""
        settle(self)
        require_name("BehaviorCloning", self.name)
        where = f"stage {self.name!r}"
        require_environment(where, self.environment)
        if isinstance(self.demonstrations, os.PathLike):
            object.__setattr__(self, "demonstrations", os.fspath(self.demonstrations))
        sentence = f"{where}: give either expert=Expert(...) or demonstrations='file', and not both."
        require((self.expert is None) != (self.demonstrations is None), sentence, "setting-conflict", where, "expert")
        named = getattr(self.expert, "__name__", None) or in_short(self.expert)
        sentence = f"{where}: expert must be an Expert(...); write Expert({named})."
        require(
            self.expert is None or isinstance(self.expert, Expert),
            sentence,
            "setting-type",
            where,
            "expert",
            self.expert,
        )
        sentence = f"{where}: demonstrations is {self.demonstrations!r}; give the path of a file."
        require(
            self.demonstrations is None or (isinstance(self.demonstrations, str) and bool(self.demonstrations)),
            sentence,
            "setting-type",
            where,
            "demonstrations",
            self.demonstrations,
        )
        require_criterion(where, self.until, optional=True)
        check_settings(where, self)

    @property
    def source(self) -> str:
        """The expert or the file of demonstrations, as it was written."""
        return str(self.expert.source if self.expert else self.demonstrations)

    @property
    def shower(self) -> str:
        """The name of the expert or the file, for the beginning of a sentence."""
        if self.expert is not None:
            return f"The expert {self.expert.name}"
        return os.path.basename(str(self.demonstrations))

    @property
    def experts(self) -> tuple[Expert, ...]:
        """The expert of the stage, if it has one."""
        return () if self.expert is None else (self.expert,)

    @property
    def epoch_limit(self) -> int:
        """Maximum number of passes over the demonstrations."""
        return self.max_epochs

    @property
    def goes_on_when_missed(self) -> bool:
        """Whether the run continues with the next stage if this one misses its threshold."""
        return self.on_failure == "advance"

    def check_place(self, before: Sequence[StageSpec], agent: Agent) -> None:
        """Refuse an algorithm that does not support cloning."""
        algorithm: AlgorithmSpec = agent.algorithm
        sentence = (
            f"stage {self.name!r}: {algorithm.name} has no cloning; choose another algorithm, or leave the stage out."
        )
        require(CLONING in algorithm.supports, sentence, "stage-order", f"stage {self.name!r}", "algorithm")

    @property
    def remedy(self) -> str:
        """Advice if the clone misses its threshold, as a sentence."""
        return "Give the clone more or better demonstrations, or ask less of it, and train again."

    def patient(self) -> BehaviorCloning:
        """Return the stage with the setting that the run continues if its threshold is missed."""
        return replace(self, on_failure="advance")

    def __str__(self) -> str:
        source = str(self.expert) if self.expert else self.demonstrations
        demand = f", until {self.until}" if self.until else ""
        settings = unusual(self, "expert", "demonstrations", "until")
        return f"clone {source} in {self.environment}{demand}{settings}"
