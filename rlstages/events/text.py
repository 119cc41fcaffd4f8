"""Numbers and spans of time as text. Pure functions."""

from __future__ import annotations

import math


def count(value: float) -> str:
    """Return a large whole number in short: 950, 12.3k, 132k, 1.50M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.6k would else read "1000k".
        if abs(value) >= size * 0.9995:
            scaled = value / size
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f}{unit}"
    return f"{value:.0f}"


def number(value: float | None) -> str:
    """Return a measured value with the digits a person reads: 0.87, 24.5, 245, 12.3k; `-` for none."""
    if value is None or not math.isfinite(value):
        return "-"
    size = abs(value)
    if size < 9.995:
        return f"{value:.2f}" if size >= 0.005 or value == 0 else f"{value:.1e}"
    if size < 99.95:
        return f"{value:.1f}"
    return count(value)


def span(seconds: float) -> str:
    """Return a time span: 0.4 s, 41 s, 1 min 02 s, 2 h 05 min, 3 d 04 h."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for size, unit, part, sub in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {sub}"
    return f"{whole} s"


def took(steps: int, seconds: float) -> str:
    """Return what a stage has taken."""
    return f"{count(steps)} steps, {span(seconds)}"
