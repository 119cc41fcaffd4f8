"""Records of what a run keeps and loses: at the hand-over, in earlier stages, and where it never trains."""

from __future__ import annotations

from dataclasses import dataclass

from rlstages.specs.criteria.baselines import Baselines
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import serializable


@serializable
@dataclass(frozen=True)
class HandoverChecked:
    """After the first updates the policy was compared with the clone that it was.

    Attributes:
        attempt: Number of this comparison in the stage, from 1.
        stage_steps: Environment steps of this stage so far, those of the comparison included.
        before: Score of the clone.
        after: Score of the policy: of fresh episodes of the same seeds, or of its training episodes.
        p_value: Of the paired one-sided test of 'the mean has not fallen'; `None` where training episodes raised no
            suspicion, so that no fresh ones were played.
        fell: Whether the drop is significant, and larger than a margin.
        rolled_back: Whether the clone came back.
    """

    attempt: int
    stage_steps: int
    before: Score
    after: Score
    p_value: float | None
    fell: bool
    rolled_back: bool


@serializable
@dataclass(frozen=True)
class HandoverRecovered:
    """After a drop at the hand-over, training episodes are as good as the clone's were.

    Attributes:
        stage_steps: Environment steps of this stage so far.
        steps: Environment steps since the first update.
    """

    stage_steps: int
    steps: int


@serializable
@dataclass(frozen=True)
class ExplorationMeasured:
    """How much a policy tries in the states that it meets, and whether it was made to try more.

    Attributes:
        stage_steps: Environment steps of this stage so far.
        entropy: Mean over the states, as a share of the largest entropy; `None` for continuous actions.
        entropy_low: A low quantile of the same.
        std: Mean standard deviation of a continuous policy, as a share of half an action's range; else `None`.
        reason: Why it was made to try more, as half a sentence; empty if it was not.
    """

    stage_steps: int
    entropy: float | None
    entropy_low: float | None
    std: float | None
    reason: str = ""


@serializable
@dataclass(frozen=True)
class LookedBack:
    """The frozen policy was examined in the environment of the stage before.

    Attributes:
        look: Number of this look in the stage, from 1.
        stage: Name of the stage before.
        stage_steps: Environment steps of the stage under way so far, those of looks included.
        decline: What this look's episodes say.
        over: Whether no further episodes are played for it.
    """

    look: int
    stage: str
    stage_steps: int
    decline: Decline
    over: bool


@serializable
@dataclass(frozen=True)
class StageCollapsed:
    """A stage made the policy lose what the stage before had reached, and the run went back to that one.

    Attributes:
        back_to: Name of the stage before.
        reason: One sentence.
        stage_steps: Environment steps it took.
        seconds: Wall-clock, over all sessions.
        decline: Of the policy, in the environment of the stage before.
        policy: File of the policy, which goes on as it is, relative to the run directory.
        digest: SHA-256 of that file.
        parent: SHA-256 of the policy file it came from.
        visit: Of the stage that collapsed, from 1.
    """

    back_to: str
    reason: str
    stage_steps: int
    seconds: float
    decline: Decline
    policy: str
    digest: str
    parent: str | None
    visit: int


@serializable
@dataclass(frozen=True)
class BaselinesMeasured:
    """Chance and the expert were scored in an environment.

    Attributes:
        environment: Its name, as in `Retained`.
        baselines: What normalised scores are measured against there.
    """

    environment: str
    baselines: Baselines


@serializable
@dataclass(frozen=True)
class Retained:
    """A policy's score in one environment.

    Attributes:
        environment: Name of the stage that trains there, or of an environment that is held out.
        measure: `"success"` or `"return"`.
        score: `None` where the run had no steps to spare for it, or the next stage scores it before it begins.
        normalized: `(value - random) / (expert - random)` of the measure; `None` where one of the two is missing.
    """

    environment: str
    measure: str
    score: Score | None
    normalized: float | None


@serializable
@dataclass(frozen=True)
class RetentionMeasured:
    """The policy that left this stage was scored in every environment of the curriculum.

    Attributes:
        scores: In the environments of all stages, in their order.
        held_out: In environments that are never trained in.
        steps: Environment steps that such scores took in the run so far; they are not among `global_step`.
        seconds: Likewise.
    """

    scores: tuple[Retained, ...]
    held_out: tuple[Retained, ...]
    steps: int
    seconds: float
