"""The base class of event payloads, with their metrics, console lines and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import serializable

STEP_AXIS = "global_step"


@dataclass
class StageView:
    """The part of a stage that a payload's console line may use.

    Attributes:
        measure: Measure of its criterion: `"success"`, `"return"`, or `"score"` without a criterion.
        max_steps: Its step limit, or `None`.
        max_epochs: Its epoch limit, or `None`.
    """

    measure: str
    max_steps: int | None
    max_epochs: int | None

    def measured(self, score: Score | None) -> float | None:
        """Return the number of a score in the measure of this stage's criterion."""
        if score is None:
            return None
        return score.success if self.measure_of(score) == "success" else score.mean_return

    def measure_of(self, score: Score | None) -> str:
        """Return what `measured` returns of this score: `"success"` or `"return"`."""
        if self.measure == "return" or score is None or score.success is None:
            return "return" if self.measure == "score" else self.measure
        return "success"


NO_STAGE = StageView("score", None, None)
"""The stage of events outside of all stages."""


@dataclass(frozen=True)
class LeftFile:
    """A file that an event reports.

    Attributes:
        kind: `"policy"`, `"demonstrations"`, or a word of one's own.
        path: Path of the file, relative to the run directory.
        digest: SHA-256 of the file.
        parent: SHA-256 of the file that it was made from, or `None`.
        about: Other metadata by name.
    """

    kind: str
    path: str
    digest: str
    parent: str | None
    about: Mapping[str, Any]


class Payload:
    """The base class of payloads: frozen dataclasses that define what trackers show of an event.

    Its fields are data that JSON can hold. What a kind does not override shows nothing.

    Attributes:
        axis: X-axis of its metrics: environment steps, or a count of such events under another name.
        stands_out: Whether its line is also printed above the live view of a terminal.
    """

    axis: ClassVar[str] = STEP_AXIS
    stands_out: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        serializable(cls)

    def scalars(self) -> Mapping[str, float | None]:
        """Return the metrics by `"section/name"`. `None` and non-finite values are skipped."""
        return {}

    def line(self, stage: StageView) -> str:
        """Return the line that the console prints; nothing if it is empty."""
        return ""

    def often(self, stage: StageView) -> int:
        """Return the number of events of this kind per console line; 0 to print each."""
        return 0

    def drawn(self) -> float | None:
        """Return the value that the live view plots as a curve, or `None`."""
        return None

    def leaves(self) -> LeftFile | None:
        """Return the file that the event reports, or `None`."""
        return None


def prefixed(prefix: str, values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return metrics with the prefix of a section."""
    return {f"{prefix}/{name}": value for name, value in values.items()}


def numbers_of(score: Score) -> dict[str, float | None]:
    """Return the two numbers of a score by name."""
    return {"return": score.mean_return, "success": score.success}


def named(prefix: str, score: Score | None) -> dict[str, float | None]:
    """Return the two numbers of a score by longer names, or nothing without a score."""
    return {} if score is None else {f"{prefix}_{name}": value for name, value in numbers_of(score).items()}
