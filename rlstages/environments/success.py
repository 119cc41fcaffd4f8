"""Whether an episode counts as solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlstages.references import resolve
from rlstages.specs import Success


def success_rule(success: Success) -> Callable[[dict[str, Any], float, int], bool | None]:
    """Return a function of the last info, the return and the length; it gives `None` where success is not defined.

    The function raises `ValueError` for a NaN, which Python would take for true, and whatever a function of the user's
    raises.
    """
    if isinstance(success, (int, float)):
        return lambda info, total, length: total > success
    if ":" in success:
        named = resolve(success)
        return lambda info, total, length: _truth(success, named(info, total, length))
    key = success
    return lambda info, total, length: _truth(f"info[{key!r}]", info[key]) if key in info else None


def _truth(name: str, value: Any) -> bool:
    if value != value:
        raise ValueError(f"{name} is {value}")
    return bool(value)
