"""Checks of an environment before step 0, by episodes of random actions and of the expert."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlstages.demonstrations.episodes import Demonstrations
from rlstages.environments.guard import CopyError, Guarded, traceback_of
from rlstages.environments.make import make_environment
from rlstages.environments.success import success_rule, why_unknown
from rlstages.errors import InputError, require
from rlstages.play.recording import Budget, Show, rehearse
from rlstages.specs.criteria.episodes import MAX_EPISODE_STEPS, Episode
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert

TRIAL = Budget(steps=2_000, seconds=2.0)
TRIAL_EPISODES = 40
EXPERT_TRIAL = Budget(steps=2_000, seconds=1.0)
ENDLESS = 20_000
"""Number of random steps after which an episode without a known limit counts as endless."""
LIMITS = ("_max_episode_steps", "max_episode_steps", "max_steps", "max_path_length", "horizon")
"""Attributes with a step limit: in gymnasium's TimeLimit and vector environments, minigrid, Meta-World, robosuite."""


class Trial(NamedTuple):
    """The result of episodes of random actions.

    Attributes:
        episodes: Episodes that ended.
        step_seconds: Median wall-clock time of a step, which ignores single steps that compile or wait.
        unended: Number of steps after which the first episode had not ended, if its step limit is unknown; else 0.
    """

    episodes: tuple[Episode, ...]
    step_seconds: float
    unended: int = 0

    @property
    def silent(self) -> bool:
        """Whether episodes ended, but none of them reported success or failure."""
        return bool(self.episodes) and all(episode.success is None for episode in self.episodes)


def try_episodes(environment: Environment) -> Trial:
    """Play episodes with random actions, for a short time.

    Raises:
        InputError: If an episode fails, has a non-finite reward, or its success function fails.
    """
    env = Guarded(make_environment(environment), 0, environment.step_timeout)
    episodes: list[Episode] = []
    seconds: list[float] = []
    try:
        limited = limit_of(env) is not None
        env.action_space.seed(0)
        started = time.monotonic()
        while len(episodes) < TRIAL_EPISODES and len(seconds) < TRIAL.steps:
            left = Budget(TRIAL.steps if limited or episodes else ENDLESS, started + TRIAL.seconds - time.monotonic())
            episode = _play_at_random(environment, env, len(episodes), left, seconds)
            if episode is None:
                break
            episodes.append(episode)
        unended = len(seconds) if not (episodes or limited) and len(seconds) >= TRIAL.steps else 0
        return Trial(tuple(episodes), float(np.median(seconds)), unended)
    finally:
        env.close()


def _play_at_random(
    environment: Environment, env: Guarded, number: int, budget: Budget, seconds: list[float]
) -> Episode | None:
    """Play one episode, and add each step's time to `seconds`; return `None` if the budget is spent before."""
    solved = success_rule(environment.success)
    total, step, held, started = 0.0, 0, False, time.monotonic()
    try:
        env.reset(seed=number)
        for step in range(1, budget.steps + 1):
            action, asked = env.action_space.sample(), time.monotonic()
            _, reward, terminated, truncated, info = env.step(action)
            seconds.append(time.monotonic() - asked)
            sentence = (
                f"{environment} gives the reward {reward} at step {step} of an episode of random actions; "
                "rewards must be finite numbers."
            )
            require(math.isfinite(reward), sentence, "environment-invalid", environment)
            total += reward
            if terminated or truncated:
                success = solved(info, total, step)
                return Episode(0, number, total, step, True if held else success)
            if environment.success_at == "any":
                held = held or bool(solved(info, total, step))
            if time.monotonic() - started > budget.seconds:
                break
        return None
    except CopyError as error:
        sentence = f"{environment} fails in an episode of random actions, at step {step}: it {error.what}."
        raise InputError(sentence, "environment-invalid", environment, trace=error.trace) from error
    except InputError:
        raise
    except Exception as error:
        sentence = f"{environment}: whether an episode succeeded cannot be told: {why_unknown(error)}."
        raise InputError(
            sentence,
            "environment-invalid",
            environment,
            "success",
            trace=traceback_of(error) if ":" in str(environment.success) else "",
        ) from error


def try_expert(environment: Environment, expert: Expert, show: Show) -> Demonstrations:
    """Let the expert play for a short time, in the same way as when it is recorded.

    Returns:
        Complete episodes, if there was time for any.

    Raises:
        InputError: If the expert fails, its action does not fit the space, or the environment fails.
    """
    return rehearse(environment, expert, show, EXPERT_TRIAL)


def limit_of(env: gym.Env[Any, Any]) -> int | None:
    """Return the step limit of an environment's episodes, or `None` if it is unknown."""
    inside: Any = env
    while inside is not None:
        for name in LIMITS:
            limit = vars(inside).get(name)
            if isinstance(limit, (int, np.integer)) and 0 < limit <= MAX_EPISODE_STEPS:
                return int(limit)
        inside = vars(inside).get("env", vars(inside).get("batched"))
    spec = getattr(env, "spec", None)
    return getattr(spec, "max_episode_steps", None)
