"""Staged reinforcement learning: clone an expert, then fine-tune the same network on harder and harder environments.

The names below are loaded when they are first used, so `import rlstages` is fast and brings in neither torch nor
stable-baselines3.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlstages.demonstrations.episodes import Demonstrations, load_demonstrations
    from rlstages.environments.batched_env import BatchedEnv
    from rlstages.errors import InputError
    from rlstages.events.event import Event, Pause, Tracker
    from rlstages.experiments.compare.compare import compare
    from rlstages.experiments.sweep import sweep
    from rlstages.play.exporting import export
    from rlstages.play.saved_policies import evaluate, load_policy
    from rlstages.specs.agent import Agent
    from rlstages.specs.algorithms.a2c import A2C
    from rlstages.specs.algorithms.base import AlgorithmSpec
    from rlstages.specs.algorithms.ppo import PPO
    from rlstages.specs.criteria.criterion import AllOf, AnyOf, Criterion, Verdict
    from rlstages.specs.criteria.thresholds import RewardThreshold, SuccessThreshold
    from rlstages.specs.curriculum import Curriculum
    from rlstages.specs.environment import Environment
    from rlstages.specs.expert import Expert
    from rlstages.specs.loading import load_curriculum
    from rlstages.specs.schedules import Linear
    from rlstages.specs.stages.base import StageSpec
    from rlstages.specs.stages.cloning import BehaviorCloning
    from rlstages.specs.stages.fine_tuning import FineTuning
    from rlstages.storage.run_directory import read_events
    from rlstages.tracking.overview import show
    from rlstages.tracking.replay import track
    from rlstages.training.resuming import resume
    from rlstages.training.session import RunResult
    from rlstages.training.start import check, train

__all__ = [
    "A2C",
    "Agent",
    "AlgorithmSpec",
    "AllOf",
    "AnyOf",
    "BatchedEnv",
    "BehaviorCloning",
    "Criterion",
    "Curriculum",
    "Demonstrations",
    "Environment",
    "Event",
    "Expert",
    "FineTuning",
    "InputError",
    "Linear",
    "PPO",
    "Pause",
    "RewardThreshold",
    "RunResult",
    "StageSpec",
    "SuccessThreshold",
    "Tracker",
    "Verdict",
    "check",
    "compare",
    "evaluate",
    "export",
    "load_curriculum",
    "load_demonstrations",
    "load_policy",
    "read_events",
    "resume",
    "show",
    "sweep",
    "track",
    "train",
]

_HOMES = {
    "demonstrations.episodes": ["Demonstrations", "load_demonstrations"],
    "environments.batched_env": ["BatchedEnv"],
    "errors": ["InputError"],
    "events.event": ["Event", "Pause", "Tracker"],
    "experiments.compare.compare": ["compare"],
    "experiments.sweep": ["sweep"],
    "play.exporting": ["export"],
    "play.saved_policies": ["evaluate", "load_policy"],
    "specs.agent": ["Agent"],
    "specs.algorithms.a2c": ["A2C"],
    "specs.algorithms.base": ["AlgorithmSpec"],
    "specs.algorithms.ppo": ["PPO"],
    "specs.criteria.criterion": ["AllOf", "AnyOf", "Criterion", "Verdict"],
    "specs.criteria.thresholds": ["RewardThreshold", "SuccessThreshold"],
    "specs.curriculum": ["Curriculum"],
    "specs.environment": ["Environment"],
    "specs.expert": ["Expert"],
    "specs.loading": ["load_curriculum"],
    "specs.schedules": ["Linear"],
    "specs.stages.base": ["StageSpec"],
    "specs.stages.cloning": ["BehaviorCloning"],
    "specs.stages.fine_tuning": ["FineTuning"],
    "storage.run_directory": ["read_events"],
    "tracking.overview": ["show"],
    "tracking.replay": ["track"],
    "training.resuming": ["resume"],
    "training.start": ["check", "train"],
    "training.session": ["RunResult"],
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rlstages")
    if name not in _MODULES:
        raise AttributeError(f"module 'rlstages' has no attribute {name!r}")
    return getattr(import_module(f"rlstages.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
