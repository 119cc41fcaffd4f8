"""Figures of a comparison, made by matplotlib, which is an optional dependency."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlstages.experiments.compare.results import ArmResult, Results, finals
from rlstages.storage.checkpoints import replace_durably

INSTALL_MATPLOTLIB = (
    "Without matplotlib there are no figures: pip install 'rlstages[plots]', then run this command again."
)
# Okabe and Ito's colours, which colour-blind readers can tell apart; markers say it once more.
_COLORS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#808080", "#cc79a7", "#8c564b", "#66a61e"]
_MARKERS = "osD^xvP*"


@dataclass(frozen=True)
class Theme:
    """The colors of a figure.

    Attributes:
        ink: Color of axes and text.
        grid: Color of the grid lines.
        paper: Behind everything; `"none"` lets a page's own colour through.
    """

    ink: str
    grid: str
    paper: str


PRINT = Theme("#1b1f24", "#dddddd", "white")
LIGHT = Theme("#1b1f24", "#dddddd", "none")
DARK = Theme("#e6e6e6", "#444444", "none")


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_figures(directory: Path, results: Results) -> list[Path]:
    """Write `compare.png` and `compare.svg`: curves with bands and stage changes, final scores with intervals."""
    files = []
    for form in ("png", "svg"):
        figure = _figure(PRINT, 12.0, 4.6)
        curves, scores = figure.subplots(1, 2, width_ratios=[3, 2])
        _draw_curves(curves, results, PRINT)
        _draw_scores(scores, results, PRINT)
        files.append(directory / f"compare.{form}")
        replace_durably(files[-1], _written(figure, form))
    return files


def curves_svg(results: Results, theme: Theme, width: float, height: float) -> str:
    """Return the learning curves as an SVG image of this size in inches."""
    figure = _figure(theme, width, height)
    _draw_curves(figure.subplots(), results, theme)
    return _written(figure, "svg").decode()


def profile_svg(results: Results, theme: Theme, width: float, height: float) -> str:
    """Return the performance profiles as an SVG image of this size in inches."""
    figure = _figure(theme, width, height)
    axes = figure.subplots()
    for index, arm in enumerate(results.arms):
        axes.step(results.levels, arm.profile, where="post", **_style(results, arm, index), label=arm.name)
    axes.set_xlabel(f"final {results.plan.measure} above", color=theme.ink)
    axes.set_ylabel("share of runs", color=theme.ink)
    axes.set_ylim(-0.03, 1.03)
    _finish(axes, theme)
    return _written(figure, "svg").decode()


def color_of(index: int) -> str:
    """Return the colour of an arm, by its index."""
    return _COLORS[index % len(_COLORS)]


def _draw_curves(axes: Any, results: Results, theme: Theme) -> None:
    measure = results.plan.measure
    for index, arm in enumerate(results.arms):
        middle = np.array([point.value for point in arm.curve])
        style = _style(results, arm, index)
        if arm.level:
            axes.plot(results.grid, middle, **{**style, "linestyle": "--", "marker": ""}, label=arm.name)
            continue
        shown = {**style, "marker": _MARKERS[index % len(_MARKERS)], "markersize": 4, "markevery": 0.15}
        axes.plot(results.grid, middle, **shown, label=arm.name)
        if all(point.low is not None for point in arm.curve):
            low, high = [p.low for p in arm.curve], [p.high for p in arm.curve]
            axes.fill_between(results.grid, low, high, color=style["color"], alpha=0.13, linewidth=0)
    for cost, stage in _stage_ends(results):
        axes.axvline(cost, color=color_of(results.arms.index(results.first)), linewidth=0.8, linestyle=":")
        place = {"xy": (cost, 1.0), "xycoords": ("data", "axes fraction"), "xytext": (2, 2)}
        axes.annotate(stage, **place, textcoords="offset points", fontsize=7, color=theme.ink, rotation=30)
    axes.axhline(results.plan.threshold, color=theme.ink, linewidth=0.8, linestyle=(0, (1, 3)))
    note = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 7, "color": theme.ink}
    axes.annotate("threshold", xy=(0.0, results.plan.threshold), xytext=(2, 2), ha="left", **note)
    axes.set_xlabel("environment steps, all counted", color=theme.ink)
    axes.set_ylabel(f"{measure} in the last variant", color=theme.ink)
    axes.set_xlim(0, results.steps)
    _finish(axes, theme)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")


def _draw_scores(axes: Any, results: Results, theme: Theme) -> None:
    names = [arm.name for arm in results.arms]
    for index, arm in enumerate(results.arms):
        found, color = arm.final[0], color_of(index)
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [index, index], color=color, linewidth=5, alpha=0.35)
        axes.plot([found.value], [index], "o", color=color, markersize=9)
        seeds = finals(results.plan, arm)
        axes.plot(seeds, [index] * len(seeds), "|", color=theme.ink, markersize=9, alpha=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"final {results.plan.measure}, with 95 % interval and each seed", color=theme.ink)
    _finish(axes, theme, legend=False)


def _stage_ends(results: Results) -> list[tuple[float, str]]:
    """Return where the first arm's stages ended: the median over its seeds."""
    ends: dict[str, list[int]] = {}
    for run in results.first.runs:
        for mark in run.marks:
            ends.setdefault(mark.stage, []).append(mark.cost)
    return [(float(np.median(costs)), stage) for stage, costs in ends.items()]


def _style(results: Results, arm: ArmResult, index: int) -> dict[str, Any]:
    return {"color": color_of(index), "linewidth": 2.6 if arm.name == results.plan.reference else 1.4}


def _figure(theme: Theme, width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=theme.paper)


def _finish(axes: Any, theme: Theme, legend: bool = True) -> None:
    axes.set_facecolor("none")
    axes.grid(color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.ink)
    if legend:
        width = axes.figure.get_figwidth()
        kind = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16 if width > 5 else -0.2), "fontsize": 8}
        axes.legend(ncols=3 if width > 5 else 2, frameon=False, labelcolor=theme.ink, **kind)


def _written(figure: Any, form: str) -> bytes:
    content = io.BytesIO()
    # No date and fixed ids: the same comparison gives the same file.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "rlstages"}):
        figure.savefig(content, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return content.getvalue()
