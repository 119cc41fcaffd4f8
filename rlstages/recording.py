"""An expert in an environment becomes demonstrations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages.demonstrations import Demonstration, Demonstrations
from rlstages.environments.guarding import CopyError, Guarded, late, traceback_of
from rlstages.environments.making import make_environment
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.environments.success import success_rule
from rlstages.environments.watchdog import Overdue, TimeLimit
from rlstages.episodes import MAX_EPISODE_STEPS
from rlstages.errors import InputError, reason_of, require
from rlstages.spaces import stack
from rlstages.specs import Environment, Expert

Act = Callable[[Any], Any]
Show = Callable[[gym.Env[Any, Any]], Act]


def record(environment: Environment, expert: Expert, show: Show, run_seed: int = 0, stage: int = 0) -> Demonstrations:
    """Let an expert play.

    Args:
        environment: Where it plays, one copy.
        expert: Who plays, and how many episodes.
        show: Makes the expert's function from observation to action, given the copy (`experts.showing`).
        run_seed: Of the run; with `stage` and the episode's number it seeds every episode.
        stage: Index of the stage.

    Raises:
        InputError: If the expert does not exist, fails, or its episodes do not end.
    """
    env = make_environment(environment)
    try:
        act = show(env)
        solved = success_rule(environment.success)
        seeds = [episode_seed(run_seed, stage, Purpose.DEMONSTRATION, 0, i) for i in range(expert.episodes)]
        copy = Guarded(env, 0, environment.step_timeout)
        return Demonstrations(tuple(_play(environment, expert, copy, act, seed, solved) for seed in seeds))
    finally:
        env.close()


def _play(
    environment: Environment,
    expert: Expert,
    env: gym.Env[Any, Any],
    act: Act,
    seed: int,
    solved: Callable[..., bool | None],
) -> Demonstration:
    failing = f"{environment} failed"
    limit = TimeLimit(environment.step_timeout, f"An action of the expert {expert.source}")
    try:
        observation, info = env.reset(seed=seed)
    except CopyError as error:
        place = f"at the start of the episode with seed {seed}"
        raise InputError(f"{failing}, {place}: it {error.what}.", trace=error.trace) from error
    seen: list[Any] = [observation]
    actions: list[Any] = []
    rewards: list[float] = []
    ended = False
    while not ended:
        require(
            len(actions) < MAX_EPISODE_STEPS,
            f"An episode of {expert.source} did not end within {MAX_EPISODE_STEPS:,} steps; "
            "give the environment a time limit.",
        )
        failing = f"The expert {expert.source} failed"
        try:
            with limit:
                action = act(observation)
            failing = f"{environment} failed with the action {action!r} of the expert {expert.source}"
            observation, reward, terminated, truncated, info = env.step(action)
        except InputError:
            raise
        except Exception as error:
            place = f"at step {len(actions)} of the episode with seed {seed}"
            reason, trace = reason_of(error), traceback_of(error)
            if isinstance(error, CopyError):
                reason, trace = f"it {error.what}", error.trace
            elif isinstance(error, Overdue):
                reason = f"it {late(limit.seconds, 'its action')}"
            raise InputError(f"{failing}, {place}: {reason}.", trace=trace) from error
        require(
            math.isfinite(reward),
            f"{environment} gave the reward {reward} at step {len(actions)} of the episode with seed {seed}, played by "
            f"{expert.source}; rewards must be finite numbers.",
        )
        seen.append(observation)
        actions.append(action)
        rewards.append(float(reward))
        ended = terminated or truncated
    try:
        success = solved(info, sum(rewards), len(rewards))
    except Exception as error:
        place = f"the episode with seed {seed}"
        raise InputError(f"{environment}: whether {place} succeeded cannot be told: {reason_of(error)}.") from error
    watched = stack(seen, env.observation_space)
    return Demonstration(watched, _as_array(expert, actions, env.action_space), np.array(rewards), success)


def _as_array(expert: Expert, actions: list[Any], space: gym.Space[Any]) -> np.ndarray:
    """Return actions in their space's type, and refuse what that would change."""
    try:
        stored = np.array(actions, dtype=space.dtype)
        same = stored.dtype.kind == "f" or np.array_equal(stored, np.array(actions))
    except (TypeError, ValueError, OverflowError):
        same = False
    require(same, f"The expert {expert.source} gives actions that are not in {space}, such as {actions[-1]!r}.")
    return stored
