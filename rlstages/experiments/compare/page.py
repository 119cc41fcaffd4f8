"""The outcome of a comparison as one self-contained HTML page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from rlstages.experiments.compare import figure
from rlstages.experiments.compare.results import ArmResult, Results, finals
from rlstages.experiments.compare.table import steps
from rlstages.experiments.compare.verdict import Conclusion
from rlstages.experiments.compare.wording import interval, score_text
from rlstages.specs.criteria.baselines import value_of
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.record import versions

BADGES = {
    "wins": "beyond luck",
    "loses": "beyond luck",
    "ahead": "may be luck",
    "behind": "may be luck",
    "level": "no clear difference",
    "none": "nothing to compare",
}


@dataclass(frozen=True)
class Bar:
    """An arm's final score as it lies on a scale; all places are percent of it.

    Attributes:
        arm: Its result.
        color: Color of the arm.
        place: Position of the score.
        low: Lower end of the interval's lower end.
        high: Upper end of its upper end.
        seeds: Seeds of each run.
        text: Score in numbers.
        scaled: Score with chance as 0 and the expert as 1.
        first: Whether it is the arm that the others are compared with.
    """

    arm: ArmResult
    color: str
    place: float
    low: float
    high: float
    seeds: tuple[float, ...]
    text: str
    scaled: str
    first: bool


@dataclass(frozen=True)
class Picture:
    """One picture in two colourings and two widths, as data URIs."""

    wide_light: str
    wide_dark: str
    narrow_light: str
    narrow_dark: str


def write_page(directory: Path, results: Results, verdict: Conclusion) -> Path:
    """Write `compare.html`."""
    file = directory / "compare.html"
    replace_durably(file, page(results, verdict).encode())
    return file


def page(results: Results, verdict: Conclusion) -> str:
    """Return the page."""
    plan = results.plan
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    bars, marks = _bars(results)
    drawn = figure.can_draw() and bool(results.contrasts)
    return templates.get_template("page.html").render(
        results=results,
        plan=plan,
        verdict=verdict,
        badge=BADGES[verdict.outcome],
        bars=bars,
        marks=marks,
        curves=_picture(figure.curves_svg, results, 8.6, 4.8) if drawn else None,
        profiles=_picture(figure.profile_svg, results, 8.6, 3.6) if drawn else None,
        without_pictures=figure.INSTALL_MATPLOTLIB,
        contrasts=[
            {
                "other": contrast.other,
                "difference": interval(contrast.difference, plan.measure),
                "improvement": interval(contrast.improvement, "success"),
                "p": f"{contrast.p:.2g}",
                "speed_p": f"{contrast.speed_p:.2g}",
            }
            for contrast in results.contrasts
        ],
        details=[
            {
                "arm": arm,
                "worst": score_text(arm.worst, plan.measure),
                "spread": score_text(arm.spread, plan.measure),
                "steps": steps(arm),
                "held_out": list(map(interval, arm.final[1:], results.measures[1:])),
            }
            for arm in results.arms
        ],
        held_out=[": ".join(map(str, both)) for both in zip(plan.environments[1:], results.measures[1:], strict=True)],
        threshold=score_text(plan.threshold, plan.measure),
        versions=versions(),
    )


def _bars(results: Results) -> tuple[list[Bar], list[dict[str, object]]]:
    """Return the final scores and the baselines on one scale."""
    plan = results.plan
    base = results.baselines[0]
    ends = {"chance": value_of(base.random, plan.measure)}
    if base.expert is not None:
        ends["expert"] = value_of(base.expert, plan.measure)
    values = [value for arm in results.arms for value in finals(plan, arm)] + list(ends.values())
    values += [0.0, 1.0] if plan.measure == "success" else []
    least, most = min(values), max(values)
    width = (most - least) or 1.0

    def place(value: float | None) -> float:
        return 0.0 if value is None else round(100 * (value - least) / width, 2)

    bars = []
    for index, arm in enumerate(results.arms):
        found = arm.final[0]
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        bars.append(
            Bar(
                arm=arm,
                color=figure.color_of(index),
                place=place(found.value),
                low=place(low),
                high=place(high),
                seeds=tuple(map(place, finals(plan, arm))),
                text=interval(found, plan.measure),
                scaled=interval(arm.normalized[0], "success"),
                first=arm.name == plan.reference,
            )
        )
    marks: list[dict[str, object]] = [
        {"name": name, "place": place(value), "text": score_text(value, plan.measure)} for name, value in ends.items()
    ]
    return bars, marks


def _picture(draw: object, results: Results, width: float, height: float) -> Picture:
    assert callable(draw)
    light, dark = figure.LIGHT, figure.DARK
    sizes = [(light, width, height), (dark, width, height), (light, 4.2, 4.6), (dark, 4.2, 4.6)]
    return Picture(*(_uri(draw(results, theme, wide, high)) for theme, wide, high in sizes))


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
