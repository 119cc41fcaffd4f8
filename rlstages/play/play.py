"""A frozen policy plays episodes of its own, and is scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.monitor import monitor_of
from rlstages.environments.seeding import OWN_START, EpisodeStart, Purpose, episode_seed
from rlstages.errors import Fault
from rlstages.specs.criteria.episodes import MAX_EPISODE_STEPS, Episode


class Actor(Protocol):
    """Acts with a policy; an algorithm does."""

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function from the observations of all copies to actions; its draws depend on the seed alone."""


def play_wave(
    actor: Actor, env: VecEnv, seed: int, deterministic: bool, start: EpisodeStart = OWN_START
) -> list[Episode]:
    """Play one whole episode in each copy.

    One episode per copy, counted by its start: to take the first to finish would favour short ones.

    Args:
        actor: Plays; its policy is not changed.
        env: Its copies are reset first.
        seed: Copy `i` gets `seed + i`, and the actions are drawn from it.
        deterministic: Whether the policy takes its likeliest action instead of sampling.
        start: Options and actions with which all episodes begin.

    Returns:
        The episodes in the order of their copies.

    Raises:
        InputError: If the environment's episodes cannot begin so.
        Fault: If an episode does not end.
    """
    act = actor.player(seed, deterministic)
    monitor = monitor_of(env)
    monitor.begin_with([start] * env.num_envs)
    env.seed(seed)
    observations: Any = env.reset()
    first: dict[int, Episode] = {}
    steps = 0
    while len(first) < env.num_envs:
        steps += 1
        if steps > MAX_EPISODE_STEPS:
            waiting = min(set(range(env.num_envs)) - set(first))
            raise Fault(
                f"The episode of copy {waiting} did not end within {MAX_EPISODE_STEPS:,} steps; give the environment a "
                "time limit.",
                "episode-endless",
            )
        observations, _, _, _ = env.step(act(observations))
        for episode in monitor.take():
            first.setdefault(episode.copy, episode)
    return [first[copy] for copy in range(env.num_envs)]


def play_episodes(
    actor: Actor,
    env: VecEnv,
    episodes: int,
    run_seed: int,
    stage: int,
    deterministic: bool,
    start: EpisodeStart = OWN_START,
) -> list[Episode]:
    """Play at least `episodes` episodes, in waves of one per copy; the same numbers give the same seeds and draws."""
    played: list[Episode] = []
    wave = 0
    while len(played) < episodes:
        seed = episode_seed(run_seed, stage, Purpose.EVALUATION, 0, wave)
        played += play_wave(actor, env, seed, deterministic, start)
        wave += 1
    return played
