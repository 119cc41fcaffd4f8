"""The outcome of a comparison for the terminal."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rlstages.compare.results import ArmResult, Results
from rlstages.compare.verdict import Verdict, interval, show

_COLORS = {"wins": "green", "ahead": "yellow", "level": "yellow", "behind": "yellow", "loses": "red", "none": "red"}


def summary(results: Results, verdict: Verdict) -> Group:
    """Return the verdict and the tables."""
    parts: list[Text | Table] = [Text(verdict.headline, f"bold {_COLORS[verdict.outcome]}")]
    parts += [Text(text) for text in (verdict.size, verdict.sureness, verdict.speed) if text]
    parts += [Text(), _finals(results), Text(), _contrasts(results)]
    if len(results.plan.environments) > 1:
        parts += [Text(), _held_out(results)]
    parts += [Text(), *(Text(f"but: {caveat}", "dim") for caveat in verdict.caveats)]
    return Group(*parts)


def print_summary(results: Results, verdict: Verdict) -> None:
    """Print it."""
    Console().print(summary(results, verdict))


def _finals(results: Results) -> Table:
    plan = results.plan
    title = f"{plan.measure} in the last variant after {results.steps:,} steps, {len(plan.seeds)} seeds"
    table = Table(title=title)
    for column in ("arm", "score", "of expert", "worst", "spread", "steps to threshold"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm in results.arms:
        score, scaled = interval(arm.final[0], plan.measure), interval(arm.normalized[0], "success")
        table.add_row(
            arm.name, score, scaled, show(arm.worst, plan.measure), show(arm.spread, plan.measure), steps(arm)
        )
    return table


def _contrasts(results: Results) -> Table:
    table = Table(title=f"{results.plan.reference} against each other arm")
    for column in ("against", "difference", "probability of improvement", "p"):
        table.add_column(column, justify="left" if column == "against" else "right")
    for contrast in results.contrasts:
        difference = interval(contrast.difference, results.plan.measure)
        table.add_row(contrast.other, difference, interval(contrast.improvement, "success"), f"{contrast.p:.2g}")
    return table


def _held_out(results: Results) -> Table:
    plan = results.plan
    table = Table(title="held-out environments, never trained in and not part of the verdict")
    table.add_column("arm")
    for environment, measure in zip(plan.environments[1:], results.measures[1:], strict=True):
        table.add_column(f"{environment}: {measure}", justify="right")
    for arm in results.arms:
        table.add_row(arm.name, *map(interval, arm.final[1:], results.measures[1:]))
    return table


def steps(arm: ArmResult) -> str:
    """Return an arm's steps to the threshold as text."""
    count = f"{arm.steps.reached} of {arm.steps.runs}"
    return f"{count} reach it" if arm.steps.median is None else f"{arm.steps.median:,.0f} ({count})"
