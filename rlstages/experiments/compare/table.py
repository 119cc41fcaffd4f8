"""The outcome of a comparison for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rlstages.experiments.compare.results import ArmResult, Results
from rlstages.experiments.compare.verdict import Conclusion
from rlstages.experiments.compare.wording import interval, score_text

_COLORS = {"wins": "green", "ahead": "yellow", "level": "yellow", "behind": "yellow", "loses": "red", "none": "red"}


def verdict_tables(results: Results, verdict: Conclusion) -> Group:
    """Return the verdict and the tables."""
    parts: list[Text | Table] = [Text(verdict.headline, f"bold {_COLORS[verdict.outcome]}")]
    parts += [Text(text) for text in (verdict.size, verdict.sureness, verdict.speed, *verdict.transfer) if text]
    parts += [Text(), _finals(results), Text(), _contrasts(results)]
    if len(results.plan.environments) > 1:
        parts += [Text(), _held_out(results)]
    parts += [Text("To keep in mind:", "dim"), *(Text(f"- {caveat}", "dim") for caveat in verdict.caveats)]
    return Group(*parts)


def print_summary(results: Results, verdict: Conclusion) -> None:
    """Print the verdict and the tables."""
    Console().print(verdict_tables(results, verdict))


def _finals(results: Results) -> Table:
    plan = results.plan
    goal = f"{plan.measure} {score_text(plan.threshold, plan.measure)}"
    title = f"{plan.measure} in the last variant after {results.steps:,} steps; the threshold is {goal}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for column in ("arm", "score", "of expert", "worst", "spread", "steps to threshold"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=column != "steps to threshold")
    for arm in results.arms:
        scaled = None if arm.normalized[0] is None else arm.normalized[0].value
        score = interval(arm.final[0], plan.measure)
        table.add_row(
            arm.name,
            score,
            score_text(scaled, "success"),
            score_text(arm.worst, plan.measure),
            score_text(arm.spread, plan.measure),
            steps(arm),
        )
    return table


def _contrasts(results: Results) -> Table:
    table = Table(title=f"{results.plan.reference} against each other arm", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("against", "difference", "probability of improvement", "p"):
        table.add_column(column, justify="left" if column == "against" else "right")
    for contrast in results.contrasts:
        difference = interval(contrast.difference, results.plan.measure)
        table.add_row(contrast.other, difference, interval(contrast.improvement, "success"), f"{contrast.p:.2g}")
    return table


def _held_out(results: Results) -> Table:
    plan = results.plan
    table = Table(
        title="held-out environments, never trained in and not part of the verdict", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("arm")
    for environment, measure in zip(plan.environments[1:], results.measures[1:], strict=True):
        table.add_column(f"{environment}: {measure}", justify="right")
    for arm in results.arms:
        table.add_row(arm.name, *map(interval, arm.final[1:], results.measures[1:]))
    return table


def steps(arm: ArmResult) -> str:
    """Return an arm's median steps to the threshold, and how many of its seeds reach it, as text."""
    median = "-" if arm.steps.median is None else f"{arm.steps.median:,.0f}"
    return f"{median} ({arm.steps.reached}/{arm.steps.runs})"
