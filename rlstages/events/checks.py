"""Events for what a policy keeps and loses: at the hand-over, in earlier stages, and in held-out environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlstages.events.payload import Payload, StageView, named, numbers_of, prefixed
from rlstages.events.text import count, number
from rlstages.specs.criteria.baselines import Baselines, value_of
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import serializable

FEW = 30
"""Number of episodes below which a score is marked; its 95 % interval then spans a third of the scale."""


@dataclass(frozen=True)
class HandoverChecked(Payload):
    """The event that the policy was compared with the clone after the first updates.

    Attributes:
        attempt: Number of this comparison in the stage, from 1.
        stage_steps: Environment steps of this stage so far, those of the comparison included.
        before: Score of the clone.
        after: Score of the policy: of fresh episodes of the same seeds, or of its training episodes.
        p_value: P-value of the paired one-sided test of 'the mean has not fallen', or `None` if training episodes
            raised no suspicion, so that no fresh ones were played.
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

    def scalars(self) -> Mapping[str, float | None]:
        """Return both scores, and the number of times that the clone was restored."""
        return {
            **named("handover/clone", self.before),
            **prefixed("handover", numbers_of(self.after)),
            "handover/rollbacks": self.attempt - 1 + self.rolled_back,
        }

    def line(self, stage: StageView) -> str:
        """Return the result of the comparison."""
        measure = self.measure(stage)
        before, after = (value_of(score, measure) for score in (self.before, self.after))
        end = f"{self.fall(before - after)}{', the clone is back' if self.rolled_back else ''}"
        return f"hand-over: {measure} {number(before)} before, {number(after)} after the first updates: {end}"

    def measure(self, stage: StageView) -> str:
        """Return the measure of the comparison: `"success"` or `"return"`."""
        return "success" if stage.measure == "success" and self.before.success is not None else "return"

    def fall(self, dip: float, unit: str = "") -> str:
        """Return the difference of the two in words. A dip need not be significant."""
        if dip <= 0.0:
            return "no dip"
        luck = ", beyond luck" if self.fell else ", which may be luck" if self.p_value is not None else ""
        return f"a dip of {number(dip)}{unit}{luck}"


@dataclass(frozen=True)
class HandoverRecovered(Payload):
    """The event that, after a drop at the hand-over, training episodes are as good as the clone's.

    Attributes:
        stage_steps: Environment steps of this stage so far.
        steps: Environment steps since the first update.
    """

    stage_steps: int
    steps: int

    def scalars(self) -> Mapping[str, float | None]:
        """Return how long it took."""
        return {"handover/steps_to_recover": self.steps}

    def line(self, stage: StageView) -> str:
        """Return how long it took."""
        return f"as good as the clone again, {count(self.steps)} steps after the first update"


@dataclass(frozen=True)
class ExplorationMeasured(Payload):
    """The event that exploration was measured, and perhaps restored.

    Attributes:
        stage_steps: Environment steps of this stage so far.
        entropy: Mean over the states, as a share of the largest entropy; `None` for continuous actions.
        entropy_low: Low quantile of the same.
        std: Mean standard deviation of a continuous policy, as a share of half an action's range; else `None`.
        reason: Why it was made to try more, as half a sentence; empty if it was not.
    """

    stage_steps: int
    entropy: float | None
    entropy_low: float | None
    std: float | None
    reason: str = ""

    def scalars(self) -> Mapping[str, float | None]:
        """Return what was measured, and whether it was made to try more."""
        return {
            "exploration/entropy": self.entropy,
            "exploration/entropy_low": self.entropy_low,
            "exploration/std": self.std,
            "exploration/given_back": float(bool(self.reason)),
        }

    def line(self, stage: StageView) -> str:
        """Return the measured exploration."""
        if self.std is not None:
            tried = f"standard deviation {number(self.std)} of half an action's range"
        else:
            low = f"in a tenth of its states below {self.entropy_low:.1%}"
            tried = f"entropy {self.entropy:.0%} of the largest, {low}"
        return f"exploration: {tried}{f'; {self.reason}' if self.reason else ''}"


@dataclass(frozen=True)
class LookedBack(Payload):
    """The event of a look-back: the frozen policy played in the environment of the stage before.

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

    def scalars(self) -> Mapping[str, float | None]:
        """Return the result of the look-back, once all episodes are played."""
        if not self.over:
            return {}
        return {
            "eval/look_back_value": self.decline.value,
            "eval/look_back_bound": self.decline.bound,
            "eval/look_back_level": self.decline.level,
            "stage/steps": self.stage_steps,
        }

    def line(self, stage: StageView) -> str:
        """Return the result of the look-back, once all episodes are played."""
        return f"look back at {self.found()}" if self.over else ""

    def found(self) -> str:
        """Return the result of the episodes so far."""
        return f"{self.stage}: {self.decline}"


@dataclass(frozen=True)
class BaselinesMeasured(Payload):
    """The event that random actions and the expert were scored in an environment.

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

    def value(self, measure: str) -> float | None:
        """Return the score in a measure, which may be `"normalized"`."""
        if self.score is None:
            return None
        return self.normalized if measure == "normalized" else value_of(self.score, measure)

    def scalars(self, section: str) -> Mapping[str, float | None]:
        """Return the score as metrics, with slashes in the environment's name replaced."""
        if self.score is None:
            return {}
        values = {**numbers_of(self.score), "normalized": self.normalized}
        return prefixed(f"{section}/{self.environment.replace('/', '-')}", values)


@dataclass(frozen=True)
class RetentionMeasured(Payload):
    """The event that the policy after this stage was scored in every environment of the curriculum.

    Attributes:
        scores: Scores in the environments of all stages, in order.
        held_out: Scores in held-out environments.
        steps: Environment steps that such scores took in the run so far; they are not among `global_step`.
        seconds: Wall-clock that such scores took in the run so far.
    """

    scores: tuple[Retained, ...]
    held_out: tuple[Retained, ...]
    steps: int
    seconds: float

    def scalars(self) -> Mapping[str, float | None]:
        """Return the scores by environment, and what they took."""
        cells = [("retention", cell) for cell in self.scores] + [("held_out", cell) for cell in self.held_out]
        scores = {name: value for section, cell in cells for name, value in cell.scalars(section).items()}
        return {**scores, "retention/steps": self.steps, "retention/seconds": self.seconds}

    def line(self, stage: StageView) -> str:
        """Return the scores, in one measure."""
        scored = [cell for cell in (*self.scores, *self.held_out) if cell.score is not None]
        measure = common_measure(scored)
        shown = [
            f"{cell.environment} {rough(cell.value(measure), cell.score.episodes)}" for cell in scored if cell.score
        ]
        return f"scores elsewhere ({measure}): {', '.join(shown)}" if shown else ""


def common_measure(cells: Sequence[Retained]) -> str:
    """Return one measure that all scores can be told in: the normalised one, else their own, else what all have."""
    scored = [cell for cell in cells if cell.score is not None]
    if scored and all(cell.normalized is not None for cell in scored):
        return "normalized"
    measures = {cell.measure for cell in scored}
    if len(measures) == 1:
        return measures.pop()
    return "success" if all(cell.score and cell.score.success is not None for cell in scored) else "return"


def rough(value: float | None, episodes: int) -> str:
    """Return a value, marked where it is of few episodes."""
    return ("~" if 0 < episodes < FEW else "") + number(value)
