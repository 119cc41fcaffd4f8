"""Events of a run's progress through its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rlstages.events.payload import LeftFile, Payload, StageView, named
from rlstages.events.text import took
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.curriculum import Curriculum


@dataclass(frozen=True)
class RunStarted(Payload):
    """The event that a run began or was resumed.

    Attributes:
        run_id: Id of the run everywhere, Weights & Biases included.
        curriculum: Curriculum of the run.
        seed: Seed of the run.
        versions: Versions of Python and of the important packages.
        resumed: Whether the run continues from a checkpoint.
        engine: Engine of fine-tuning and the reason for it, in a few words.
    """

    run_id: str
    curriculum: Curriculum
    seed: int
    versions: Mapping[str, str]
    resumed: bool = False
    engine: str = ""

    def line(self, stage: StageView) -> str:
        """Return the curriculum and the seed."""
        stages = len(self.curriculum.stages)
        counted = f"{stages} stage{'s' * (stages != 1)}"
        run = f"{'resumed run' if self.resumed else 'run'} {self.run_id}"
        engine = f"; engine {self.engine}" if self.engine else ""
        return f"{self.curriculum.name}: {counted}, seed {self.seed}, {run}{engine}"


@dataclass(frozen=True)
class StageStarted(Payload):
    """The event that a stage began.

    Attributes:
        kind: Name of its spec's class, such as `"BehaviorCloning"`.
        description: Stage as a sentence.
        max_steps: Its step limit, or `None` for cloning.
        max_epochs: Its epoch limit, or `None` for fine-tuning.
        criterion: Criterion that ends it, as half a sentence, or `None`.
        threshold: Threshold of the criterion, or `None`.
        visit: Number of the visit, from 1; higher if the run came back to the stage.
    """

    kind: str
    description: str
    max_steps: int | None = None
    max_epochs: int | None = None
    criterion: str | None = None
    threshold: float | None = None
    visit: int = 1

    def line(self, stage: StageView) -> str:
        """Return the description of the stage."""
        return self.description if self.visit == 1 else f"{self.description}, visit {self.visit}"


@dataclass(frozen=True)
class StageFinished(Payload):
    """The event that a stage ended.

    Attributes:
        outcome: `"reached"` (its threshold), `"completed"` (it had none), or `"missed"`.
        reason: One sentence.
        stage_steps: Environment steps it took.
        seconds: Wall-clock, over all sessions.
        before: Score of the policy that entered, or `None`.
        after: Score of the policy that left, or `None`.
        verdict: Verdict of its criterion, or `None`.
        policy: File of the policy that left, relative to the run directory.
        digest: SHA-256 of that file.
        parent: SHA-256 of the policy file or demonstrations it came from, or `None`.
        visit: Number of the visit of the stage, from 1.
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

    def scalars(self) -> Mapping[str, float | None]:
        """Return the cost of the stage, and the scores before and after it."""
        return {
            "stage/steps": self.stage_steps,
            "stage/seconds": self.seconds,
            "stage/threshold": self.verdict.threshold if self.verdict else None,
            **named("stage/before", self.before),
            **named("stage/after", self.after),
        }

    def line(self, stage: StageView) -> str:
        """Return the outcome and the reason."""
        return f"{self.outcome} after {took(self.stage_steps, self.seconds)}: {self.reason}"

    def leaves(self) -> LeftFile:
        """Return the file of the stage's final policy."""
        about = {"visit": self.visit, "outcome": self.outcome, "score": self.after, "verdict": self.verdict}
        return LeftFile("policy", self.policy, self.digest, self.parent, about)


@dataclass(frozen=True)
class StageCollapsed(Payload):
    """The event that a stage collapsed: the skill of the stage before was lost, and the run went back to it.

    Attributes:
        back_to: Name of the stage before.
        reason: One sentence.
        stage_steps: Environment steps it took.
        seconds: Wall-clock, over all sessions.
        decline: Decline of the policy in the environment of the stage before.
        policy: File of the policy, which goes on as it is, relative to the run directory.
        digest: SHA-256 of that file.
        parent: SHA-256 of the policy file it came from.
        visit: Number of the visit of the stage that collapsed, from 1.
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

    @property
    def outcome(self) -> str:
        """The outcome of the stage, as in `StageFinished`."""
        return "collapsed"

    def scalars(self) -> Mapping[str, float | None]:
        """Return the cost of the stage."""
        return {"stage/steps": self.stage_steps, "stage/seconds": self.seconds}

    def line(self, stage: StageView) -> str:
        """Return the stage to which the run goes back, and the reason."""
        return f"collapsed after {took(self.stage_steps, self.seconds)}, back to {self.back_to!r}: {self.reason}"

    def leaves(self) -> LeftFile:
        """Return the policy that goes on."""
        about = {"visit": self.visit, "outcome": self.outcome, "decline": self.decline}
        return LeftFile("policy", self.policy, self.digest, self.parent, about)


StageEnd = StageFinished | StageCollapsed
"""How a visit of a stage ends."""


@dataclass(frozen=True)
class Warned(Payload):
    """Something a person should know.

    Attributes:
        message: One sentence.
    """

    stands_out: ClassVar[bool] = True

    message: str

    def line(self, stage: StageView) -> str:
        """Return the sentence."""
        return f"warning: {self.message}"


@dataclass(frozen=True)
class RunFinished(Payload):
    """The run ended or was stopped.

    Attributes:
        outcome: `"reached"` the end, `"missed"` a threshold, `"interrupted"` (and saved), `"paused"` likewise by
            who watches the run, or `"failed"`, after which it goes on from its last checkpoint.
        reason: One sentence.
    """

    outcome: str
    reason: str
