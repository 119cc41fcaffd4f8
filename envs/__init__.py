"""Environments that ship with rlstages, and the scripted experts that solve them.

Importing this package registers the ids; `gymnasium.make("rlstages_envs:rlstages/Rooms-v0")` imports it by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import gymnasium as gym

gym.register(
    "rlstages/Rooms-v0",
    entry_point="rlstages_envs.rooms:make_rooms",
    vector_entry_point="rlstages_envs.rooms:BatchedRooms",
)
gym.register(
    "rlstages/PointMaze-v0",
    entry_point="rlstages_envs.pointmaze:make_pointmaze",
    vector_entry_point="rlstages_envs.pointmaze:BatchedPointMaze",
)

_EXPERTS = {
    "balance": "cartpole",
    "follow_path": "pointmaze",
    "land": "lunarlander",
    "plan_minigrid": "minigrid",
    "plan_rooms": "rooms",
}
__all__ = sorted(_EXPERTS)


def __getattr__(name: str) -> Any:
    """Load an expert when it is first asked for, since each comes with packages of its own."""
    if name not in _EXPERTS:
        raise AttributeError(f"module 'rlstages_envs' has no attribute {name!r}")
    return getattr(import_module(f"rlstages_envs.{_EXPERTS[name]}"), name)
