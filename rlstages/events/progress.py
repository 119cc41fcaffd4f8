"""Records of how a run goes through its stages, from its first line to its last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.serialization import serializable


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
        kind: The name of its spec's class, such as `"BehaviorCloning"`.
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
        recorded_steps: Environment steps of all episodes that were shown, those included that were filtered out; `None`
            in logs of before this was kept.
    """

    source: str
    file: str
    digest: str
    score: Score
    held_out_episodes: int
    recorded_steps: int | None = None

    @property
    def cost(self) -> int:
        """Environment steps that they took, as far as that is known."""
        return self.score.steps if self.recorded_steps is None else self.recorded_steps


@serializable
@dataclass(frozen=True)
class EpochFinished:
    """One pass over the demonstrations.

    Attributes:
        epoch: From 1, within the stage.
        metrics: `loss`, and where episodes are held out `held_out_loss` (negative log likelihood, nats), and
            `accuracy` (discrete actions) or `error` (continuous actions: root mean square, as a share of half the
            range).
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
