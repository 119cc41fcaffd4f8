"""What happens in a run, as typed records: one line each in `events.jsonl`, the record that all trackers read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rlstages.baselines import Baselines
from rlstages.criteria import Verdict
from rlstages.criteria.decline import Decline
from rlstages.curriculum import Curriculum
from rlstages.episodes import Score
from rlstages.errors import InputError, require
from rlstages.privacy import without_paths
from rlstages.serialization import TAG, dumps, from_data, require_types, serializable, to_data

VERSION = 1


@serializable
@dataclass(frozen=True)
class RunStarted:
    """A run began, or was resumed.

    Attributes:
        run_id: Of the run everywhere, Weights & Biases included.
        curriculum: What it does.
        seed: Of the run.
        versions: Of Python and the packages that matter.
        resumed: Whether the run goes on from a checkpoint.
        engine: What computes fine-tuning's actions and gradients, and why, in a few words.
    """

    run_id: str
    curriculum: Curriculum
    seed: int
    versions: Mapping[str, str]
    resumed: bool = False
    engine: str = ""


@serializable
@dataclass(frozen=True)
class StageStarted:
    """A stage began.

    Attributes:
        kind: `"BehaviorCloning"` or `"FineTuning"`.
        description: The stage as a sentence.
        max_steps: Its step limit, or `None` for cloning.
        max_epochs: Its epoch limit, or `None` for fine-tuning.
        criterion: What ends it, as half a sentence, or `None`.
        threshold: The number it is measured against, or `None`.
        visit: From 1; more where the run came back to it.
    """

    kind: str
    description: str
    max_steps: int | None = None
    max_epochs: int | None = None
    criterion: str | None = None
    threshold: float | None = None
    visit: int = 1


@serializable
@dataclass(frozen=True)
class DemonstrationsReady:
    """Demonstrations were recorded or loaded, and filtered.

    Attributes:
        source: Who showed them, in words.
        file: Where they lie, relative to the run directory.
        digest: SHA-256 of that file.
        score: Of the demonstrated episodes.
        held_out_episodes: How many of them are only measured on.
    """

    source: str
    file: str
    digest: str
    score: Score
    held_out_episodes: int


@serializable
@dataclass(frozen=True)
class EpochFinished:
    """One pass over the demonstrations.

    Attributes:
        epoch: From 1, within the stage.
        metrics: `loss`, and where episodes are held out `held_out_loss` (negative log likelihood, nats), and
            `accuracy` (discrete actions) or `error` (root mean square, continuous actions).
        best: Whether the held-out loss is the lowest so far.
    """

    epoch: int
    metrics: Mapping[str, float]
    best: bool


@serializable
@dataclass(frozen=True)
class Evaluated:
    """The frozen policy was scored on episodes of its own.

    Attributes:
        purpose: `"before"` or `"after"` a stage.
        score: The outcome.
    """

    purpose: str
    score: Score


@serializable
@dataclass(frozen=True)
class RolloutFinished:
    """One rollout and one update.

    Attributes:
        phase: `"critic fit"` or `"training"`.
        stage_steps: Environment steps of this stage so far.
        episodes: Fresh episodes in the window that the criterion looks at.
        mean_return: Of the window; `None` while it is empty.
        success: Of the window; `None` while it is empty or without a definition of success.
        mean_length: Of the window, in steps.
        value: What the criterion measures, over its window.
        threshold: What it is measured against.
        train: Losses and diagnostics of the update, by name.
        steps_per_second: Of this rollout and update.
        waiting_for: Why the gate has not opened, in one sentence.
    """

    phase: str
    stage_steps: int
    episodes: int
    mean_return: float | None
    success: float | None
    mean_length: float | None
    value: float | None
    threshold: float
    train: Mapping[str, float]
    steps_per_second: float
    waiting_for: str


@serializable
@dataclass(frozen=True)
class Judged:
    """Fresh episodes of the frozen policy were judged.

    Attributes:
        attempt: Number of this confirmation in the stage, from 1.
        stage_steps: Environment steps of this stage so far, those of confirmations included.
        verdict: What the criterion says.
    """

    attempt: int
    stage_steps: int
    verdict: Verdict


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
class StageFinished:
    """A stage ended.

    Attributes:
        outcome: `"reached"` (its threshold), `"completed"` (it had none), or `"missed"`.
        reason: One sentence.
        stage_steps: Environment steps it took.
        seconds: Wall-clock, over all sessions.
        before: Score of the policy that entered, or `None`.
        after: Score of the policy that left, or `None`.
        verdict: Of its criterion, or `None`.
        policy: File of the policy that left, relative to the run directory.
        digest: SHA-256 of that file.
        parent: SHA-256 of the policy file or demonstrations it came from, or `None`.
        visit: Of the stage, from 1.
    """

    outcome: str
    reason: str
    stage_steps: int
    seconds: float
    before: Score | None
    after: Score | None
    verdict: Verdict | None
    policy: str
    digest: str
    parent: str | None = None
    visit: int = 1


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


@serializable
@dataclass(frozen=True)
class Warned:
    """Something a person should know.

    Attributes:
        message: One sentence.
    """

    message: str


@serializable
@dataclass(frozen=True)
class RunFinished:
    """The run ended or was stopped.

    Attributes:
        outcome: `"reached"` the end, `"missed"` a threshold, `"interrupted"` (and saved), `"paused"` likewise by
            who watches the run, or `"failed"`, after which it goes on from its last checkpoint.
        reason: One sentence.
    """

    outcome: str
    reason: str


Payload = (
    RunStarted
    | StageStarted
    | DemonstrationsReady
    | EpochFinished
    | Evaluated
    | RolloutFinished
    | Judged
    | HandoverChecked
    | HandoverRecovered
    | LookedBack
    | StageFinished
    | StageCollapsed
    | BaselinesMeasured
    | RetentionMeasured
    | Warned
    | RunFinished
)


@dataclass(frozen=True)
class Event:
    """A record with its place in the run.

    Attributes:
        payload: What happened.
        global_step: Environment steps of the whole run so far.
        stage_index: From 0; -1 outside all stages.
        stage_name: Empty outside all stages.
        time: Seconds since the epoch.
    """

    payload: Payload
    global_step: int
    stage_index: int = -1
    stage_name: str = ""
    time: float = dataclasses.field(default_factory=time.time)

    def to_json(self) -> str:
        """Return the event as one line of strict JSON; numbers that are not finite become null.

        Absolute paths are cut to their last part: the event log is what is shown, uploaded and passed around.
        """
        payload = without_paths(to_data(self.payload, nan_as_null=True))
        head = {"v": VERSION, "type": payload.pop(TAG), "time": round(self.time, 3), "global_step": self.global_step}
        return dumps({**head, "stage_index": self.stage_index, "stage_name": self.stage_name, **payload})

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Event:
        """Turn a parsed line back into an event.

        Raises:
            InputError: If it is none, or of a later version.
        """
        rest = dict(data)
        version = rest.pop("v", None)
        require(version == VERSION, f"it is of version {version!r}, and this rlstages reads version {VERSION}.")
        try:
            head = [rest.pop(key) for key in ("global_step", "stage_index", "stage_name", "time")]
            payload = from_data({TAG: rest.pop("type"), **rest})
        except KeyError as error:
            raise InputError(f"it has no {error}.") from error
        require(isinstance(payload, Payload), f"it holds a {type(payload).__name__}, which is no event.")
        event = Event(payload, *head)
        require_types(event)
        return event


class Tracker(Protocol):
    """Anything that follows a run's events: a console, Weights & Biases, TensorBoard."""

    def __call__(self, event: Event) -> None:
        """Take one event."""

    def close(self) -> None:
        """Let go of files and connections; called once."""


Emit = Callable[[Payload], None]
