"""What an episode of random actions, and an expert's first step, tell of an environment before step 0."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlstages.environments.guarding import CopyError, Guarded, traceback_of
from rlstages.environments.making import make_environment
from rlstages.environments.success import success_rule
from rlstages.environments.watchdog import TimeLimit
from rlstages.errors import InputError, reason_of, require
from rlstages.recording import Show
from rlstages.specs import Environment, Expert

TRIAL_STEPS, TRIAL_SECONDS = 2_000, 2.0


class Trial(NamedTuple):
    """What came out of an episode of random actions.

    Attributes:
        silent: Whether it ended without saying whether it succeeded.
        step_seconds: Median wall-clock time of a step: one that compiles, or waits for another process, says nothing.
    """

    silent: bool
    step_seconds: float


def try_episode(environment: Environment) -> Trial:
    """Play one episode at random.

    Raises:
        InputError: If it fails, gives a reward that is not finite, or its rule of success fails.
    """
    env = Guarded(make_environment(environment), 0, environment.step_timeout)
    solved = success_rule(environment.success)
    total, step, silent, taken = 0.0, 0, False, list[float]()
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        started = time.monotonic()
        for step in range(1, TRIAL_STEPS + 1):
            action, asked = env.action_space.sample(), time.monotonic()
            _, reward, terminated, truncated, info = env.step(action)
            taken.append(time.monotonic() - asked)
            _require_finite(environment, reward, f"at step {step} of an episode of random actions")
            total += reward
            if terminated or truncated:
                silent = solved(info, total, step) is None
                break
            if time.monotonic() - started > TRIAL_SECONDS:
                break
        return Trial(silent, float(np.median(taken)))
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


def try_expert(environment: Environment, expert: Expert, show: Show) -> None:
    """Ask the expert for one action, and take it.

    Raises:
        InputError: If the expert fails, its action does not fit, or the environment fails with it.
    """
    env = make_environment(environment)
    try:
        copy = Guarded(env, 0, environment.step_timeout)
        try:
            observation, _ = copy.reset(seed=0)
        except CopyError as error:
            raise InputError(f"{environment} {error.what}, before the first step.", trace=error.trace) from error
        action = _first_action(environment, expert, show, env, observation)
        try:
            _, reward, _, _, _ = copy.step(action)
        except CopyError as error:
            raise InputError(
                f"{environment} {error.what}, with the first action of the expert {expert.source}.", trace=error.trace
            ) from error
        _require_finite(environment, reward, f"for the first action of the expert {expert.source}")
    finally:
        env.close()


def _first_action(
    environment: Environment, expert: Expert, show: Show, env: gym.Env[Any, Any], observation: Any
) -> Any:
    try:
        with TimeLimit(environment.step_timeout, f"The first action of {expert.source}"):
            action = show(env)(observation)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the expert {expert.source} fails at its first action: {reason_of(error)}.", trace=traceback_of(error)
        ) from error
    fits = env.action_space.contains(_as_dtype(action, env.action_space))
    require(fits, f"the expert {expert.source} gives the action {action!r}, which is not in {env.action_space}.")
    return action


def _as_dtype(action: Any, space: gym.Space[Any]) -> Any:
    """Return an action in the space's type, as recording stores it."""
    array = np.asarray(action)
    if array.dtype.kind not in "fiub" or array.shape != space.shape:
        return action
    return array.astype(space.dtype) if np.can_cast(array.dtype, space.dtype or array.dtype, "same_kind") else action


def _require_finite(environment: Environment, reward: float, when: str) -> None:
    require(math.isfinite(reward), f"{environment} gives the reward {reward} {when}; rewards must be finite numbers.")
