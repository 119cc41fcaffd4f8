"""Random actions and the expert play in an environment, which gives the scale for normalised scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym

from rlstages.demonstrations.episodes import Demonstrations
from rlstages.errors import Fault, InputError
from rlstages.play.experts import showing
from rlstages.play.recording import Act, Show, record
from rlstages.specs.criteria.baselines import Baselines
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.stages.base import StageSpec

SEED = 3_000_000


def acting_at_random() -> Show:
    """Return an 'expert' that draws random actions, seeded by the start of its first episode."""
    seeded = False

    def act_at_random(env: gym.Env[Any, Any]) -> Act:
        space = env.action_space
        nonlocal seeded
        if not seeded:
            space.seed(SEED)
            seeded = True
        return lambda observation: space.sample()

    return act_at_random


def play_at_random(environment: Environment, episodes: int, seed: int, stage: int) -> Demonstrations:
    """Play episodes with random actions. The same seed and index of a stage give the same episodes."""
    chance = Expert(f"{__name__}:{acting_at_random.__name__}", episodes=episodes)
    return record(environment, chance, acting_at_random(), seed, stage)


def expert_of(stages: Sequence[StageSpec]) -> Expert | None:
    """Return the first expert that a curriculum names, or `None`."""
    return next((expert for stage in stages for expert in stage.experts), None)


def measure_baselines(
    environment: Environment, expert: Expert | None, episodes: int, index: int, trust_pickle: bool
) -> Baselines:
    """Score random actions and the expert in an environment, always in the same episodes.

    Args:
        environment: Environment to play in.
        expert: Expert, or `None`.
        episodes: Number of episodes of each.
        index: Index of the environment, on which the episodes' seeds depend.
        trust_pickle: Whether an expert's model zip may be loaded.
    """
    at_random = play_at_random(environment, episodes, SEED, index).score()
    if expert is None:
        return Baselines(at_random, None, "the curriculum names no expert")
    try:
        show = showing(expert, trust_pickle=trust_pickle)
        shown = record(environment, replace(expert, episodes=episodes), show, SEED, index)
    except (InputError, Fault) as error:
        return Baselines(at_random, None, f"the expert does not play there: {error}")
    return Baselines(at_random, shown.score())
