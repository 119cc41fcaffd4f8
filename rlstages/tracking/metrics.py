"""Metrics of events, under the names that W&B and TensorBoard show."""

from __future__ import annotations

import math
from collections import Counter

from rlstages.events import EpochFinished, Event
from rlstages.events.payload import STEP_AXIS

STEP_PREFIXES = ("rollout", "train", "eval", "stage", "exploration", "handover", "retention", "held_out")
"""Sections of `rlstages`' own metrics over environment steps; other kinds of events may have others."""
CLONE_AXIS = EpochFinished.axis
SUMMARIES = {
    "rollout/return": "max,last",
    "rollout/success": "max,last",
    "clone/accuracy": "max,last",
    "clone/held_out_loss": "min,last",
}
"""Aggregates of metrics in W&B's summary. Of all other metrics it keeps the last value."""


def metrics(event: Event) -> dict[str, float]:
    """Return the finite metrics of an event by name, or an empty dictionary.

    The axis that they belong on (`Payload.axis`) is not among the numbers. Of a confirmation or a look back, which are
    played in waves, only the last wave has numbers: they are of all its episodes.
    """
    scalars = event.payload.scalars().items()
    return {name: float(value) for name, value in scalars if value is not None and math.isfinite(value)}


class Points:
    """Turns events into points on axes: environment steps, or a count over the whole run."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __call__(self, event: Event) -> dict[str, float]:
        """Return the metrics of the next event, and its position if its axis is not that of steps."""
        numbers, axis = metrics(event), event.payload.axis
        self._counts[axis] += 1
        return {**numbers, axis: self._counts[axis]} if numbers and axis != STEP_AXIS else numbers
