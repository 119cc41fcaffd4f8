"""The state of a run, gathered from its events, for the console and for W&B's table of stages."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlstages.events import (
    BaselinesMeasured,
    EpochFinished,
    Evaluated,
    Event,
    HandoverChecked,
    Judged,
    LookedBack,
    Payload,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageCollapsed,
    StageEnd,
    StageFinished,
    StageStarted,
)
from rlstages.events.payload import NO_STAGE, StageView
from rlstages.specs.criteria import AllOf, AnyOf, Criterion, RewardThreshold, SuccessThreshold, Verdict
from rlstages.specs.criteria.baselines import Baselines
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.stages.base import StageSpec
from rlstages.specs.stages.fine_tuning import UNLIMITED_STEPS

_CURVE = 512


P = TypeVar("P", bound=Payload)


@dataclass
class StageState(StageView):
    """One rung of the ladder.

    Attributes:
        index: Index from 0.
        spec: Stage as the curriculum has it.
        kind: Name of its spec's class, such as `"BehaviorCloning"`.
        description: Stage as a sentence.
        threshold: Number that is measured against, or `None`.
        visit: Number of times that it was entered.
        started: Whether it was entered.
        began: Time at which it was entered in this session, in seconds since the epoch, or `None`.
        records: What happened in it, by kind; of what comes often only the latest.
        work: Latest piece of work in it: an epoch, a rollout or a wave of a confirmation.
        curve: What was drawn, from event to event.
    """

    index: int
    spec: StageSpec
    kind: str
    description: str
    threshold: float | None
    visit: int = 1
    started: bool = False
    began: float | None = None
    records: dict[type[Payload], list[Any]] = field(default_factory=lambda: defaultdict(list))
    work: Payload | None = None
    curve: deque[float] = field(default_factory=lambda: deque(maxlen=_CURVE))

    def last(self, kind: type[P]) -> P | None:
        """Return the latest event of a kind, or `None`."""
        found: list[P] = self.records[kind]
        return found[-1] if found else None

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.spec.name

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        if self.ended:
            return self.ended.stage_steps
        counted = self.last(RolloutFinished), self.last(Judged), self.last(LookedBack)
        return max((payload.stage_steps for payload in counted if payload), default=0)

    @property
    def finished(self) -> StageFinished | None:
        """The event of its end, or `None` if it is still running, collapsed, or was not entered."""
        return self.last(StageFinished)

    @property
    def ended(self) -> StageEnd | None:
        """The event of its end or collapse, or `None` if it is still running or was not entered."""
        return self.finished or self.last(StageCollapsed)

    @property
    def confirming(self) -> bool:
        """Whether a confirmation is in progress."""
        judged = self.last(Judged)
        return judged is not None and judged is self.work and not judged.decided and not self.ended

    @property
    def before(self) -> Score | None:
        """The score of the policy before the stage, or `None`."""
        return next((e.score for e in reversed(self.records[Evaluated]) if e.purpose == "before"), None)

    @property
    def handover(self) -> list[HandoverChecked]:
        """The comparisons of the policy with the clone."""
        return self.records[HandoverChecked]

    @property
    def verdict(self) -> Verdict | None:
        """The verdict to show: the final or the latest one, or `None` if the judged policy has been trained since."""
        if self.finished:
            trained_since = self.finished.outcome == "missed" and self.max_epochs is None
            return None if trained_since and self.finished.after else self.finished.verdict
        judged = self.last(Judged)
        return judged.verdict if judged else None


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
        self.baselines: dict[str, Baselines] = {}
        self.ends: dict[tuple[int, int], StageEnd] = {}
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
            self._take_stage(event)

    def place_of(self, event: Event) -> StageView:
        """Return the stage of an event, or an empty one."""
        return self.stages[event.stage_index] if 0 <= event.stage_index < len(self.stages) else NO_STAGE

    def _take_stage(self, event: Event) -> None:
        payload, index = event.payload, event.stage_index
        if isinstance(payload, StageStarted):
            if payload.visit > 1:
                # Discard the state of an earlier visit.
                self.stages[index] = _pending(index, self.curriculum.stages[index])
            stage = self.stages[index]
            stage.visit, stage.kind, stage.description = payload.visit, payload.kind, payload.description
            stage.max_steps, stage.max_epochs = _limit(payload.max_steps), payload.max_epochs
            stage.threshold = payload.threshold
        self.current = stage = self.stages[index]
        stage.started = True
        if stage.began is None:
            stage.began = event.time
        if isinstance(payload, (RolloutFinished, Judged, EpochFinished)):
            # A stage that missed its threshold continues if it gets more steps.
            stage.records[StageFinished].clear()
            stage.work = payload
        elif isinstance(payload, StageEnd):
            self.ends[index, payload.visit] = payload
        if payload.often(stage):
            stage.records[type(payload)].clear()
        stage.records[type(payload)].append(payload)
        drawn = payload.drawn()
        if drawn is not None:
            stage.curve.append(drawn)


def _pending(index: int, stage: StageSpec) -> StageState:
    return StageState(
        index=index,
        spec=stage,
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
