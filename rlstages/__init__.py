"""Staged reinforcement learning: clone an expert, then fine-tune the same network on harder and harder environments.

The names below are loaded when they are first used, so `import rlstages` is fast and brings in neither torch nor
stable-baselines3.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlstages.batches import BatchedEnv
    from rlstages.criteria.criterion import Verdict
    from rlstages.criteria.thresholds import RewardThreshold, SuccessThreshold
    from rlstages.curriculum import Curriculum, load_curriculum
    from rlstages.demonstrations import Demonstrations, load_demonstrations
    from rlstages.errors import InputError
    from rlstages.policies import load_policy
    from rlstages.specs import Agent, Environment, Expert, Linear
    from rlstages.stages import BehaviorCloning, FineTuning
    from rlstages.tracking.replay import track
    from rlstages.training import resume, train

__all__ = [
    "Agent",
    "BatchedEnv",
    "BehaviorCloning",
    "Curriculum",
    "Demonstrations",
    "Environment",
    "Expert",
    "FineTuning",
    "InputError",
    "Linear",
    "RewardThreshold",
    "SuccessThreshold",
    "Verdict",
    "load_curriculum",
    "load_demonstrations",
    "load_policy",
    "resume",
    "track",
    "train",
]

_HOMES = {
    "batches": ["BatchedEnv"],
    "criteria": ["RewardThreshold", "SuccessThreshold", "Verdict"],
    "curriculum": ["Curriculum", "load_curriculum"],
    "demonstrations": ["Demonstrations", "load_demonstrations"],
    "errors": ["InputError"],
    "policies": ["load_policy"],
    "specs": ["Agent", "Environment", "Expert", "Linear"],
    "stages": ["BehaviorCloning", "FineTuning"],
    "tracking.replay": ["track"],
    "training": ["resume", "train"],
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rlstages' has no attribute {name!r}")
    return getattr(import_module(f"rlstages.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
