"""What an episode of random actions, and a few of an expert, tell of an environment before step 0."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlstages.demonstrations import Demonstrations
from rlstages.environments.guarding import CopyError, Guarded, traceback_of
from rlstages.environments.making import make_environment
from rlstages.environments.success import success_rule
from rlstages.episodes import MAX_EPISODE_STEPS
from rlstages.errors import InputError, reason_of, require
from rlstages.recording import Budget, Show, rehearse
from rlstages.specs import Environment, Expert

TRIAL = Budget(steps=2_000, seconds=2.0)
EXPERT_TRIAL = Budget(steps=2_000, seconds=1.0)
ENDLESS = 20_000
"""Steps of random actions after which an episode without a known limit counts as one that does not end."""
LIMITS = ("_max_episode_steps", "max_episode_steps", "max_steps", "max_path_length", "horizon")
"""Attributes that hold a limit of steps: gymnasium's TimeLimit, its batches, minigrid, Meta-World, robosuite."""


class Trial(NamedTuple):
    """What came out of an episode of random actions.

    Attributes:
        silent: Whether it ended without saying whether it succeeded.
        step_seconds: Median wall-clock time of a step: one that compiles, or waits for another process, says nothing.
        unended: Steps after which the episode had still not ended, where no limit of its steps is known; else 0.
    """

    silent: bool
    step_seconds: float
    unended: int = 0


def try_episode(environment: Environment) -> Trial:
    """Play one episode at random.

    Raises:
        InputError: If it fails, gives a reward that is not finite, or its rule of success fails.
    """
    env = Guarded(make_environment(environment), 0, environment.step_timeout)
    solved = success_rule(environment.success)
    total, step, silent, ended, taken = 0.0, 0, False, False, list[float]()
    try:
        limited = limit_of(env) is not None
        env.action_space.seed(0)
        env.reset(seed=0)
        started = time.monotonic()
        for step in range(1, (TRIAL.steps if limited else ENDLESS) + 1):
            action, asked = env.action_space.sample(), time.monotonic()
            _, reward, terminated, truncated, info = env.step(action)
            taken.append(time.monotonic() - asked)
            require(
                math.isfinite(reward),
                f"{environment} gives the reward {reward} at step {step} of an episode of random actions; "
                "rewards must be finite numbers.",
            )
            total += reward
            ended = terminated or truncated
            if ended:
                silent = solved(info, total, step) is None
                break
            if time.monotonic() - started > TRIAL.seconds:
                break
        unended = step if not (ended or limited) and step >= TRIAL.steps else 0
        return Trial(silent, float(np.median(taken)), unended)
    except CopyError as error:
        raise InputError(
            f"{environment} fails in an episode of random actions, at step {step}: it {error.what}.", trace=error.trace
        ) from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{environment}: whether an episode succeeded cannot be told: {reason_of(error)}.",
            trace=traceback_of(error) if ":" in str(environment.success) else "",
        ) from error
    finally:
        env.close()


def try_expert(environment: Environment, expert: Expert, show: Show) -> Demonstrations:
    """Let the expert play for a while, as it will when it is recorded.

    Returns:
        The whole episodes that it played, if there was time for any.

    Raises:
        InputError: If the expert fails, its action does not fit, or the environment fails with it.
    """
    return rehearse(environment, expert, show, EXPERT_TRIAL)


def limit_of(env: gym.Env[Any, Any]) -> int | None:
    """Return the number of steps after which an environment ends its episodes, where it is known, else `None`."""
    inside: Any = env
    while inside is not None:
        for name in LIMITS:
            limit = vars(inside).get(name)
            if isinstance(limit, (int, np.integer)) and 0 < limit <= MAX_EPISODE_STEPS:
                return int(limit)
        inside = vars(inside).get("env", vars(inside).get("batched"))
    spec = getattr(env, "spec", None)
    return getattr(spec, "max_episode_steps", None)
