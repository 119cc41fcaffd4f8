"""What the trainer asks of a stage while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Score


@dataclass(frozen=True)
class Result:
    """How a stage ended.

    Attributes:
        outcome: `"reached"` (its threshold), `"completed"` (it had none), `"missed"`, or `"collapsed"`.
        reason: One sentence.
        before: Score of the policy that entered, or `None`.
        after: Score of the policy that left, or `None`.
        verdict: Of its criterion, or `None`.
        parent: SHA-256 of the demonstrations it learned from, or `None`.
        decline: What was lost of the stage before, if the stage collapsed.
    """

    outcome: str
    reason: str
    before: Score | None
    after: Score | None
    verdict: Verdict | None
    parent: str | None = None
    decline: Decline | None = None


class StageRunner(Protocol):
    """A stage while it runs. Between two steps nothing is half-done: there the trainer saves, stops and resumes."""

    stage_steps: int
    result: Result | None

    def step(self) -> None:
        """Do one piece: an epoch, a rollout and its update, or a wave of evaluation episodes."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `step` depends on besides the learner, as arrays and JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""

    def close(self) -> None:
        """Let go of environments."""
