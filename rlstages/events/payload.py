"""What every kind of event says of itself: its metrics, its line on the console, and the file that it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import serializable

STEP_AXIS = "global_step"


@dataclass
class StageView:
    """What a payload is told of its stage, for its line.

    Attributes:
        measure: What its criterion measures: `"success"`, `"return"`, or `"score"` where it has none.
        max_steps: Its step limit, or `None`.
        max_epochs: Its epoch limit, or `None`.
    """

    measure: str
    max_steps: int | None
    max_epochs: int | None

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


NO_STAGE = StageView("score", None, None)
"""What an event outside of all stages is told."""


@dataclass(frozen=True)
class LeftFile:
    """A file that an event tells of.

    Attributes:
        kind: `"policy"`, `"demonstrations"`, or a word of one's own.
        path: Relative to the run directory.
        digest: SHA-256 of the file.
        parent: SHA-256 of the file that it was made from, or `None`.
        about: What else there is to say of it, by name.
    """

    kind: str
    path: str
    digest: str
    parent: str | None
    about: Mapping[str, Any]


class Payload:
    """What happened: a frozen dataclass that derives from this class, and says what trackers show of it.

    Its fields are data that JSON can hold. What a kind does not override shows nothing.

    Attributes:
        axis: What its metrics are drawn over: environment steps, or a count of such events under a name of its own.
        stands_out: Whether its line is also printed above the live view of a terminal.
    """

    axis: ClassVar[str] = STEP_AXIS
    stands_out: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        serializable(cls)

    def scalars(self) -> Mapping[str, float | None]:
        """Return its numbers as `"section/name"`; what is `None` or not finite is left out."""
        return {}

    def line(self, stage: StageView) -> str:
        """Return what the console prints, in one line; nothing where it is empty."""
        return ""

    def often(self, stage: StageView) -> int:
        """Return after how many of its kind a line is worth printing again; 0 where each is."""
        return 0

    def drawn(self) -> float | None:
        """Return the number that the live view draws from event to event, or `None`."""
        return None

    def leaves(self) -> LeftFile | None:
        """Return the file that it tells of, or `None`."""
        return None


def prefixed(prefix: str, values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return metrics in a section."""
    return {f"{prefix}/{name}": value for name, value in values.items()}


def numbers_of(score: Score) -> dict[str, float | None]:
    """Return the two numbers of a score by name."""
    return {"return": score.mean_return, "success": score.success}


def named(prefix: str, score: Score | None) -> dict[str, float | None]:
    """Return the two numbers of a score by longer names; none where there is no score."""
    return {} if score is None else {f"{prefix}_{name}": value for name, value in numbers_of(score).items()}
