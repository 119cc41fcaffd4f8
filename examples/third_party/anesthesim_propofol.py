"""Copy anesthesim's controller, whose action is a rate of 0 to 200, then fine-tune it on patients who differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from anesthesim.agents.heuristic import HEURISTIC_MAP

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold


def infuse(env: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return anesthesim's proportional controller."""
    controller: Callable[[np.ndarray], np.ndarray] = HEURISTIC_MAP["anesthesim/PropofolControl-v0"]
    return controller


def held_in_target(info: dict[str, Any], episode_return: float, length: int) -> bool:
    """Return whether the depth of anesthesia was in its target range for 0.8 of the episode."""
    return bool(info["target_fraction"] >= 0.8)


def curriculum(max_steps: int = 30_000) -> Curriculum:
    """Return a clone of the controller, which must succeed too, and fine-tuning on patients who differ.

    Args:
        max_steps: Of the fine-tuning stage.
    """
    # Without a margin the gate means that at least 0.8 of all episodes succeed, beyond luck.
    as_good = SuccessThreshold(0.8, margin=0.0)
    easy = Environment("anesthesim:anesthesim/PropofolControl-v0", difficulty="easy", success=held_in_target)
    medium = Environment("anesthesim:anesthesim/PropofolControl-v0", difficulty="medium", success=held_in_target)
    return Curriculum(
        "anesthesim-propofol",
        agent=Agent("PPO", policy="MlpPolicy", n_envs=8, normalize_observations=True),
        stages=[
            BehaviorCloning("clone", easy, expert=Expert(infuse, episodes=20), until=as_good),
            FineTuning("medium", medium, until=SuccessThreshold(0.6), max_steps=max_steps),
        ],
    )
