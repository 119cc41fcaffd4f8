"""What a spec says of itself in words."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any


def unusual(spec: Any, *told: str) -> str:
    """Return a dataclass's settings that are not its defaults, as they are written, with a semicolon before them.

    Args:
        spec: The instance.
        told: Names of fields that are told otherwise; those without a default are left out too.
    """
    values = {
        field.name: getattr(spec, field.name)
        for field in fields(spec)
        if field.default is not MISSING and field.name not in told and getattr(spec, field.name) != field.default
    }
    shown = (f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}" for name, value in values.items())
    return f"; {', '.join(shown)}" if values else ""
