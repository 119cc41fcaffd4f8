"""The learning curve of one run of a comparison, as a small file in its run directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rlstages.errors import InputError, require_sound
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import from_data, loads, to_data
from rlstages.storage.checkpoints import replace_durably

CURVE_VERSION = 1
Reason = Literal["grid", "stage", "final"]
CURVE_FILE = "curve.json"
GRID_POINTS = 32


@dataclass(frozen=True)
class Row:
    """The scores of the policy at one moment, in every environment of the comparison.

    Attributes:
        cost: Environment steps spent until then, those of demonstrations and confirmations included.
        why: `"grid"`, the end of a `"stage"`, or the `"final"` policy, on more episodes.
        scores: Scores in each environment, the last variant first.
        steps: Steps of a final policy: the number that the run was to spend; `None` for one that is trained no further.
        changes: Number of changes of the policy so far; equal numbers mean equal policies. `None` means unknown.
    """

    cost: int
    why: Reason
    scores: tuple[Score, ...]
    steps: int | None = None
    changes: int | None = None


@dataclass(frozen=True)
class Mark:
    """The end of one of the run's own stages.

    Attributes:
        cost: Environment steps spent until then.
        stage: Its name.
        outcome: `"reached"`, `"completed"` or `"missed"`.
    """

    cost: int
    stage: str
    outcome: str


@dataclass(frozen=True)
class Curve:
    """The learning curve of one run.

    Attributes:
        rows: Rows in order of time.
        marks: Ends of its own stages, in order.
        own_cost: Environment steps it spent until its stages were done, or until its curriculum stops because one
            was missed; `None` before that.
    """

    rows: tuple[Row, ...] = ()
    marks: tuple[Mark, ...] = ()
    own_cost: int | None = None

    def on_grid(self, interval: int) -> Curve:
        """Return the curve as it would be with this interval between two scores, a multiple of its own.

        A run that did not know how long it would be has more of them than others, and would be seen at the threshold
        later: two looks in a row have to be at it, and those that follow sooner are more alike.
        """
        rows: list[Row] = []
        for row in self.rows:
            if row.why != "grid" or not rows or row.cost // interval > max(kept.cost // interval for kept in rows):
                rows.append(row)
        return replace(self, rows=tuple(rows))

    def final(self, steps: int | None) -> Row | None:
        """Return the score of the final policy after this number of steps, or `None` if it is not there yet."""
        found = [row for row in self.rows if row.why == "final" and row.steps in (None, steps)]
        return found[-1] if found else None

    def at(self, steps: int) -> Row | None:
        """Return the score of the first policy that is there when `steps` are spent, or `None` if that is to come.

        Cloning spends no steps, and recording many at once: what is learned from demonstrations counts from the moment
        on at which they are paid for.
        """
        costs = [row.cost for row in self.rows if row.cost >= steps]
        if not costs:
            return None
        at_once = [row for row in self.rows if row.cost == min(costs)]
        return at_once[-1] if min(costs) == steps else at_once[0]


def grid_interval(steps: int, rollout_steps: int) -> int:
    """Return the steps between two scores of a run of this length.

    It is the least power of two times a rollout with which there are at most `GRID_POINTS`: so the grid of a longer
    run is part of that of a shorter one, and a run need not know in advance how long it will be.
    """
    interval = rollout_steps
    while steps > GRID_POINTS * interval:
        interval *= 2
    return interval


def write_curve(run: Path, curve: Curve) -> None:
    """Write the curve atomically."""
    parts = {"rows": map(_plain, curve.rows), "marks": map(_plain, curve.marks)}
    content = {
        "version": CURVE_VERSION,
        "own_cost": curve.own_cost,
        **{name: list(part) for name, part in parts.items()},
    }
    replace_durably(run / CURVE_FILE, json.dumps(content, allow_nan=False).encode())


def read_curve(run: Path) -> Curve:
    """Read the curve; a missing file is an empty curve.

    Raises:
        InputError: If the file is damaged.
    """
    file = run / CURVE_FILE
    if not file.exists():
        return Curve()
    try:
        data = loads(file.read_bytes())
        require_sound(data["version"] == CURVE_VERSION, f"it is of version {data['version']!r}.", name="version")
        rows = [Row(r["cost"], r["why"], _scores(r["scores"]), r["steps"], r.get("changes")) for r in data["rows"]]
        return Curve(tuple(rows), tuple(Mark(**mark) for mark in data["marks"]), data["own_cost"])
    except (InputError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is damaged: {error}; delete the run directory to have the run made again.", "file-damaged", file
        ) from error


def _plain(item: Row | Mark) -> dict[str, object]:
    fields = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return {name: to_data(value, nan_as_null=True) for name, value in fields.items()}


def _scores(data: Sequence[object]) -> tuple[Score, ...]:
    return tuple(score for score in map(from_data, data) if isinstance(score, Score))
