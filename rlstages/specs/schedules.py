"""Schedules: values that change over the steps of a stage."""

from __future__ import annotations

from dataclasses import dataclass

from rlstages.errors import require_number
from rlstages.specs.plain import settle
from rlstages.specs.serialization import serializable


@serializable
@dataclass(frozen=True)
class Linear:
    """A value that changes linearly over the steps of one stage: `Linear(3e-4, 1e-5)`.

    Args:
        start: Value at the first step of the stage.
        end: Value when the stage's `max_steps` are spent.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        """Refuse values that are not finite."""
        settle(self)
        require_number("Linear", "start", self.start, least=0.0)
        require_number("Linear", "end", self.end, least=0.0)

    def at(self, progress: float) -> float:
        """Return the value at a progress from 0 to 1."""
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)

    def __str__(self) -> str:
        return f"{self.start:g} to {self.end:g}"


Schedule = float | Linear


def value_at(schedule: Schedule, progress: float) -> float:
    """Return the value of a schedule or a constant at a progress from 0 to 1."""
    return schedule.at(progress) if isinstance(schedule, Linear) else schedule
