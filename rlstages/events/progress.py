"""Records of how a run goes through its stages, from its first line to its last."""

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
    """A run began, or was resumed.

    Attributes:
        run_id: Id of the run everywhere, Weights & Biases included.
        curriculum: What it does.
        seed: Seed of the run.
        versions: Versions of Python and of the important packages.
        resumed: Whether the run goes on from a checkpoint.
        engine: What computes fine-tuning's actions and gradients, and why, in a few words.
    """

    run_id: str
    curriculum: Curriculum
    seed: int
    versions: Mapping[str, str]
    resumed: bool = False
    engine: str = ""

    def line(self, stage: StageView) -> str:
        """Return what is run, and with which seed."""
        stages = len(self.curriculum.stages)
        counted = f"{stages} stage{'s' * (stages != 1)}"
        run = f"{'resumed run' if self.resumed else 'run'} {self.run_id}"
        engine = f"; engine {self.engine}" if self.engine else ""
        return f"{self.curriculum.name}: {counted}, seed {self.seed}, {run}{engine}"


@dataclass(frozen=True)
class StageStarted(Payload):
    """A stage began.

    Attributes:
        kind: Name of its spec's class, such as `"BehaviorCloning"`.
        description: Stage as a sentence.
        max_steps: Its step limit, or `None` for cloning.
        max_epochs: Its epoch limit, or `None` for fine-tuning.
        criterion: What ends it, as half a sentence, or `None`.
        threshold: Number it is measured against, or `None`.
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
        """Return what the stage does."""
        return self.description if self.visit == 1 else f"{self.description}, visit {self.visit}"


@dataclass(frozen=True)
class StageFinished(Payload):
    """A stage ended.

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
        """Return what it took, and the scores before and after."""
        return {
            "stage/steps": self.stage_steps,
            "stage/seconds": self.seconds,
            "stage/threshold": self.verdict.threshold if self.verdict else None,
            **named("stage/before", self.before),
            **named("stage/after", self.after),
        }

    def line(self, stage: StageView) -> str:
        """Return how it ended, and why."""
        return f"{self.outcome} after {took(self.stage_steps, self.seconds)}: {self.reason}"

    def leaves(self) -> LeftFile:
        """Return the policy that left."""
        about = {"visit": self.visit, "outcome": self.outcome, "score": self.after, "verdict": self.verdict}
        return LeftFile("policy", self.policy, self.digest, self.parent, about)


@dataclass(frozen=True)
class StageCollapsed(Payload):
    """A stage made the policy lose what the stage before had reached, and the run went back to that one.

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
        """How the stage ended, as `StageFinished` has it."""
        return "collapsed"

    def scalars(self) -> Mapping[str, float | None]:
        """Return what it took."""
        return {"stage/steps": self.stage_steps, "stage/seconds": self.seconds}

    def line(self, stage: StageView) -> str:
        """Return where the run goes back to, and why."""
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
