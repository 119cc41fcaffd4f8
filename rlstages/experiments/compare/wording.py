"""Scores, intervals, numbers and names as the texts of a comparison have them."""

from __future__ import annotations

from collections.abc import Sequence

from rlstages.experiments.compare.statistics import Estimate


def score_text(value: float | None, measure: str) -> str:
    """Return a score as text."""
    if value is None:
        return "-"
    return f"{value:.2f}" if measure == "success" else f"{value:.4g}"


def interval(found: Estimate | None, measure: str) -> str:
    """Return an estimate with its interval as text."""
    if found is None:
        return "-"
    if found.low is None:
        return score_text(found.value, measure)
    return f"{score_text(found.value, measure)} [{score_text(found.low, measure)}, {score_text(found.high, measure)}]"


def counted(number: int, what: str) -> str:
    """Return a number of things, in the plural if there is not just one."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(texts: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "no arm"
