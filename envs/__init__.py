"""Environments that ship with rlstages, and the scripted experts that solve them.

Importing this package registers the ids; `gymnasium.make("rlstages_envs:rlstages/Rooms-v0")` imports it by itself.
"""

from __future__ import annotations

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
