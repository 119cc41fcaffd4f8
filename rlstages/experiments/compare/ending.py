"""The result of one run of a comparison: its final score, and its steps to the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlstages.experiments.compare.budget import excess
from rlstages.experiments.compare.curve import Curve, Mark, Row
from rlstages.experiments.compare.plan import Plan
from rlstages.specs.criteria.baselines import value_of
from rlstages.specs.criteria.episodes import Score


@dataclass(frozen=True)
class RunEnd:
    """The result of one run.

    Attributes:
        seed: Seed of it.
        failure: Why it did not come to its end, or `None`.
        own_cost: Steps that its own stages took, or `None` if they are not done.
        missed: Stages whose threshold it missed.
        scores: Scores of its final policy in each environment, or empty.
        excess: Steps that it overspent, where its last step of training does not explain them; else 0.
        spent: Steps until it reached the last threshold, or until it ended.
        reached: Whether it reached the last threshold.
        marks: Ends of its stages.
    """

    seed: int
    failure: str | None
    own_cost: int | None
    missed: tuple[str, ...]
    scores: tuple[Score, ...]
    excess: int
    spent: int
    reached: bool
    marks: tuple[Mark, ...]


def run_end(plan: Plan, seed: int, curve: Curve, steps: int, failure: str | None) -> RunEnd:
    """Return the result of a run, from its curve."""
    final = curve.final(steps)
    failure = (failure or "not finished") if final is None else None
    end = steps if final is not None else max((row.cost for row in curve.rows), default=0)
    spent, reached = _crossing(plan, _looks(curve, steps), end)
    # Of a stage that the run came back to, its last end counts.
    outcomes = {mark.stage: mark.outcome for mark in curve.marks}
    missed = tuple(stage for stage, outcome in outcomes.items() if outcome == "missed")
    scores, over = (final.scores, excess(plan, final.cost, final.scores, steps)) if final is not None else ((), 0)
    return RunEnd(seed, failure, curve.own_cost, missed, scores, over, spent, reached, curve.marks)


def row_at(curve: Curve, point: int, steps: int) -> Row | None:
    """Return the score at a point of the grid; that of a policy that is trained no further stands at all later ones."""
    final = curve.final(steps)
    return final if final is not None and final.steps is None and point >= final.cost else curve.at(point)


def _looks(curve: Curve, steps: int) -> list[Row]:
    """Return the scores of policies that differ: the last of each cost, and the first of a policy that stood still.

    A policy that is trained no further is seen twice: it stays what it is.
    """
    final = curve.final(steps)
    by_cost = {row.cost: row for row in curve.rows if row.why != "final"}
    if final is not None:
        by_cost[final.cost] = final
    looks: list[Row] = []
    for row in by_cost.values():
        if not looks or row is final or row.changes is None or row.changes != looks[-1].changes:
            looks.append(row)
    return looks + [final] if final is not None and final.steps is None else looks


def _crossing(plan: Plan, looks: Sequence[Row], end: int) -> tuple[int, bool]:
    """Return the steps until two looks in a row are at the threshold or above, or `end` if there are none."""
    above = [value_of(row.scores[0], plan.measure) >= plan.threshold for row in looks]
    for row, now, then in zip(looks, above, above[1:], strict=False):
        if now and then:
            return min(row.cost, end), True
    return end, False
