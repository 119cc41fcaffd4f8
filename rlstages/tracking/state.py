"""Where a run stands, gathered from its events: what the console shows and the W&B table of stages holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlstages.events import (
    BaselinesMeasured,
    DemonstrationsReady,
    EpochFinished,
    Evaluated,
    Event,
    HandoverChecked,
    HandoverRecovered,
    Judged,
    LookedBack,
    RetentionMeasured,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageCollapsed,
    StageFinished,
    StageStarted,
)
from rlstages.specs.criteria import AllOf, AnyOf, Criterion, RewardThreshold, SuccessThreshold, Verdict
from rlstages.specs.criteria.baselines import Baselines
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.stages.base import StageSpec
from rlstages.specs.stages.fine_tuning import UNLIMITED_STEPS

_CURVE = 512


@dataclass
class StageState:
    """One rung of the ladder.

    Attributes:
        index: From 0.
        name: Of the stage.
        kind: The name of its spec's class, such as `"BehaviorCloning"`.
        description: The stage as a sentence.
        measure: What its criterion measures: `"success"`, `"return"`, or `"score"` where it has none.
        threshold: The number that is measured against, or `None`.
        max_steps: Its step limit, or `None`.
        max_epochs: Its epoch limit, or `None`.
        visit: How often it was entered.
        started: Whether it was entered.
        began: When it was entered in this session, in seconds since the epoch, or `None`.
        confirming: Whether a confirmation is under way.
        before: What the policy scored that entered, or `None`.
        handover: Comparisons of the policy with the clone that it was.
        retention: What the policy that left scores elsewhere, or `None`.
        curve: What the criterion measured, rollout by rollout; for cloning the loss to watch, epoch by epoch.
    """

    index: int
    name: str
    kind: str
    description: str
    measure: str
    threshold: float | None
    max_steps: int | None
    max_epochs: int | None
    visit: int = 1
    started: bool = False
    began: float | None = None
    confirming: bool = False
    before: Score | None = None
    demonstrations: DemonstrationsReady | None = None
    evaluated: Evaluated | None = None
    epoch: EpochFinished | None = None
    rollout: RolloutFinished | None = None
    judged: Judged | None = None
    handover: list[HandoverChecked] = field(default_factory=list)
    recovered: HandoverRecovered | None = None
    retention: RetentionMeasured | None = None
    looked: LookedBack | None = None
    finished: StageFinished | None = None
    collapsed: StageCollapsed | None = None
    curve: deque[float] = field(default_factory=lambda: deque(maxlen=_CURVE))

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        if self.ended:
            return self.ended.stage_steps
        return max((p.stage_steps for p in (self.rollout, self.judged, self.looked) if p), default=0)

    @property
    def ended(self) -> StageFinished | StageCollapsed | None:
        """How it ended, or `None` while it is under way or was not entered."""
        return self.finished or self.collapsed

    @property
    def verdict(self) -> Verdict | None:
        """The verdict to show: the final one, or the latest; none where what it judged has been trained since."""
        if self.finished:
            trained_since = self.finished.outcome == "missed" and self.max_epochs is None
            return None if trained_since and self.finished.after else self.finished.verdict
        return self.judged.verdict if self.judged else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the step limit at the latest speed, or `None` where there is no saying."""
        if not self.rollout or self.max_steps is None or self.rollout.steps_per_second <= 0:
            return None
        return max(0, self.max_steps - self.steps) / self.rollout.steps_per_second

    def measured(self, score: Score | None) -> float | None:
        """Return the number of a score that this stage's criterion would look at."""
        if score is None:
            return None
        return score.success if self.measure_of(score) == "success" else score.mean_return

    def measure_of(self, score: Score | None) -> str:
        """Return what `measured` returns of this score: `"success"` or `"return"`."""
        if self.measure == "return" or score is None or score.success is None:
            return "return" if self.measure == "score" else self.measure
        return "success"


class RunState:
    """Follows events.

    Args:
        curriculum: Its stages are the ladder.
        history: Events of earlier sessions of the run.

    Attributes:
        ends: How each visit of a stage ended, by the stage's index and the number of the visit, in order.
    """

    def __init__(self, curriculum: Curriculum, history: Iterable[Event] = ()) -> None:
        self.curriculum = curriculum
        self.stages = [_pending(index, stage) for index, stage in enumerate(curriculum.stages)]
        self.start: RunStarted | None = None
        self.finish: RunFinished | None = None
        self.current: StageState | None = None
        self.began: float | None = None
        self.epochs = 0
        self.baselines: dict[str, Baselines] = {}
        self.ends: dict[tuple[int, int], StageFinished | StageCollapsed] = {}
        for event in history:
            self.take(event)
        self.finish = self.began = None
        for stage in self.stages:
            stage.began = None

    def take(self, event: Event) -> None:
        """Follow one event."""
        payload = event.payload
        if self.began is None:
            self.began = event.time
        if isinstance(payload, RunStarted):
            self.start = payload
            for stage, spec in zip(self.stages, payload.curriculum.stages, strict=False):
                # A resumed run may have been given more steps.
                stage.max_steps = _limit(spec.step_limit)
        elif isinstance(payload, RunFinished):
            self.finish = payload
        elif isinstance(payload, BaselinesMeasured):
            self.baselines[payload.environment] = payload.baselines
        if 0 <= event.stage_index < len(self.stages):
            self.current = self.stages[event.stage_index]
            self.current.started = True
            if isinstance(payload, StageStarted) and payload.visit > 1:
                self._begin_again(self.current, payload.visit)
            if isinstance(payload, (RolloutFinished, Judged, EpochFinished)):
                # A stage that missed its threshold goes on when it is given more steps.
                self.current.finished = None
            if self.current.began is None:
                self.current.began = event.time
            self._take_stage(self.current, event)

    def _begin_again(self, stage: StageState, visit: int) -> None:
        """Forget what an earlier visit left."""
        self.current = self.stages[stage.index] = _pending(stage.index, self.curriculum.stages[stage.index])
        self.current.started, self.current.visit = True, visit

    def _take_stage(self, stage: StageState, event: Event) -> None:
        payload = event.payload
        if isinstance(payload, StageStarted):
            stage.kind, stage.description = payload.kind, payload.description
            stage.max_steps, stage.max_epochs = _limit(payload.max_steps), payload.max_epochs
            stage.threshold = payload.threshold
        elif isinstance(payload, DemonstrationsReady):
            stage.demonstrations = payload
        elif isinstance(payload, Evaluated):
            stage.evaluated = payload
            if payload.purpose == "before":
                stage.before = payload.score
        elif isinstance(payload, EpochFinished):
            self.epochs += 1
            stage.epoch = payload
            _extend(stage.curve, payload.metrics.get("held_out_loss", payload.metrics.get("loss")))
        elif isinstance(payload, RolloutFinished):
            stage.rollout, stage.confirming = payload, False
            _extend(stage.curve, payload.value)
        elif isinstance(payload, Judged):
            stage.judged, stage.confirming = payload, not (payload.verdict.met or payload.verdict.futile)
        elif isinstance(payload, HandoverChecked):
            stage.handover.append(payload)
        elif isinstance(payload, HandoverRecovered):
            stage.recovered = payload
        elif isinstance(payload, RetentionMeasured):
            stage.retention = payload
        elif isinstance(payload, LookedBack):
            stage.looked = payload
        elif isinstance(payload, StageFinished):
            stage.finished, stage.confirming = payload, False
            self.ends[stage.index, payload.visit] = payload
        elif isinstance(payload, StageCollapsed):
            stage.collapsed, stage.confirming = payload, False
            self.ends[stage.index, payload.visit] = payload


def _extend(curve: deque[float], value: float | None) -> None:
    if value is not None:
        curve.append(value)


def _pending(index: int, stage: StageSpec) -> StageState:
    return StageState(
        index=index,
        name=stage.name,
        kind=type(stage).__name__,
        description=str(stage),
        measure=_measure(stage.until),
        threshold=None if stage.until is None else stage.until.summary(())[1],
        max_steps=_limit(stage.step_limit),
        max_epochs=stage.epoch_limit,
    )


def _limit(max_steps: int | None) -> int | None:
    return None if max_steps is not None and max_steps >= UNLIMITED_STEPS else max_steps


def _measure(criterion: Criterion | None) -> str:
    if isinstance(criterion, (AllOf, AnyOf)):
        return _measure(criterion.first)
    if isinstance(criterion, SuccessThreshold):
        return "success"
    return "return" if isinstance(criterion, RewardThreshold) else "score"
