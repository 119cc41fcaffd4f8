"""Playing complete episodes with a frozen policy."""

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
    """An object that acts with a policy, such as an algorithm."""

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function from the observations of all environments to actions; its draws depend only on the seed."""


def play_wave(
    actor: Actor, env: VecEnv, seed: int, deterministic: bool, start: EpisodeStart = OWN_START
) -> list[Episode]:
    """Play one complete episode in each environment.

    Taking the first episodes to finish instead would favour short ones.

    Args:
        actor: Object that acts. Its policy is not changed.
        env: Environments, which are reset first.
        seed: Seed of the actions. Environment `i` gets `seed + i`.
        deterministic: Whether to take the likeliest action instead of sampling.
        start: Options and actions with which all episodes begin.

    Returns:
        Episodes in the order of the environments.

    Raises:
        InputError: If episodes cannot begin with `start`.
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
    """Play at least `episodes` episodes, in waves. The same arguments give the same seeds and draws."""
    played: list[Episode] = []
    wave = 0
    while len(played) < episodes:
        seed = episode_seed(run_seed, stage, Purpose.EVALUATION, 0, wave)
        played += play_wave(actor, env, seed, deterministic, start)
        wave += 1
    return played
