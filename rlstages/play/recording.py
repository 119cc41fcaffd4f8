"""Recording an expert's episodes as demonstrations."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlstages.demonstrations.episodes import Demonstration, Demonstrations
from rlstages.environments.action_units import outside
from rlstages.environments.guard import CopyError, Guarded, late, traceback_of
from rlstages.environments.make import make_environment
from rlstages.environments.seeding import EpisodeStart, Purpose, episode_seed
from rlstages.environments.spaces import describe_space, detached, stack
from rlstages.environments.success import info_key, is_true, success_rule, why_unknown
from rlstages.environments.watchdog import Overdue, TimeLimit
from rlstages.errors import InputError, reason_of, require
from rlstages.specs.criteria.episodes import MAX_EPISODE_STEPS
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.plain import thaw

Act = Callable[[Any], Any]
Show = Callable[[gym.Env[Any, Any]], Act]


class Budget(NamedTuple):
    """Limits of a trial, which ends when either is reached.

    Attributes:
        steps: Environment steps.
        seconds: Seconds of wall-clock time.
    """

    steps: int
    seconds: float


def record(
    environment: Environment,
    expert: Expert,
    show: Show,
    run_seed: int = 0,
    stage: int = 0,
    level: Mapping[str, Any] | None = None,
) -> Demonstrations:
    """Record episodes of an expert.

    Args:
        environment: Environment, of which one instance is made.
        expert: Spec of the expert, with the number of episodes.
        show: Function that takes the environment and returns the expert's function from observations to actions
            (`experts.showing`). It is called for every episode, after the reset.
        run_seed: Seed of the run. Every episode's seed depends on it, on `stage` and on the episode's number.
        stage: Index of the stage.
        level: Options with which every episode starts.

    Raises:
        InputError: If the expert does not exist, fails or leaves the action space, or its episodes do not end.
    """
    return _record(environment, expert, show, (run_seed, stage, Purpose.DEMONSTRATION), level, None)


def rehearse(environment: Environment, expert: Expert, show: Show, budget: Budget) -> Demonstrations:
    """Let an expert play for a short time in the same way as `record`, to find errors early.

    Args:
        environment: Environment to play in.
        expert: Spec of the expert, with the maximum number of episodes.
        show: Same as for `record`.
        budget: Limits of the trial.

    Returns:
        Complete episodes.

    Raises:
        InputError: In the same cases as `record`.
    """
    return _record(environment, expert, show, (0, 0, Purpose.TRIAL), None, budget)


def _record(
    environment: Environment,
    expert: Expert,
    show: Show,
    place: tuple[int, int, Purpose],
    level: Mapping[str, Any] | None,
    budget: Budget | None,
) -> Demonstrations:
    env = make_environment(environment)
    played: list[Demonstration] = []
    steps, started = 0, time.monotonic()
    try:
        play = _Play(environment, expert, env, show)
        for number in range(expert.episodes):
            left = None
            if budget is not None:
                left = Budget(budget.steps - steps, budget.seconds - (time.monotonic() - started))
                if min(left) <= 0:
                    break
            episode = play(EpisodeStart(episode_seed(*place, 0, number), level or {}), left)
            if episode is None:
                break
            played.append(episode)
            steps += len(episode)
        return Demonstrations(tuple(played))
    finally:
        env.close()


class _Play:
    """Plays episodes of an expert in one environment."""

    def __init__(self, environment: Environment, expert: Expert, env: gym.Env[Any, Any], show: Show) -> None:
        self._environment, self._expert, self._env, self._show = environment, expert, env, show
        self._copy = Guarded(env, 0, environment.step_timeout)
        self._solved, self._key = success_rule(environment.success), info_key(environment.success)
        self._limit = TimeLimit(environment.step_timeout, f"An action of the expert {expert.source}")
        self._masks: Callable[[], Any] | None = None
        with contextlib.suppress(AttributeError):
            self._masks = env.get_wrapper_attr("action_masks")

    def __call__(self, start: EpisodeStart, budget: Budget | None) -> Demonstration | None:
        """Play one complete episode; return `None` if the budget is spent before it ends."""
        expert, space, seed = self._expert, self._env.action_space, start.seed
        observation, info, act = self._begin(start)
        seen: list[Any] = [observation]
        actions: list[np.ndarray] = []
        rewards: list[float] = []
        masks: list[np.ndarray | None] = []
        total = 0.0
        ended, held, started = False, False, time.monotonic()
        while not ended:
            if budget is not None and (len(actions) >= budget.steps or time.monotonic() - started > budget.seconds):
                return None
            sentence = (
                f"An episode of {expert.source} did not end within {MAX_EPISODE_STEPS:,} steps; "
                "give the environment a time limit."
            )
            require(len(actions) < MAX_EPISODE_STEPS, sentence, "episode-endless", self._environment)
            place = f"at step {len(actions)} of the episode with seed {seed}"
            masks.append(self._allowed(info, place))
            action = self._ask(act, observation, place)
            actions.append(_checked(expert, action, space, place))
            observation, reward, terminated, truncated, info = self._step(action, place)
            seen.append(observation)
            rewards.append(reward)
            total += reward
            ended = terminated or truncated
            if not ended and not held:
                held = self._holds(info, total, len(rewards), seed)
        success = self._judge(info, total, len(rewards), seed)
        if self._environment.success_at == "any":
            success, held = held or success, False
        watched = stack(seen, self._env.observation_space)
        return Demonstration(
            watched,
            np.stack(actions),
            np.array(rewards),
            success,
            held,
            terminated,
            truncated,
            seed,
            start.options,
            _stacked(masks),
        )

    def _allowed(self, info: dict[str, Any], place: str) -> np.ndarray | None:
        """Return the mask of allowed actions, from the environment's `action_masks()` or else from its info."""
        try:
            with self._limit:
                return _mask(info.get("action_mask") if self._masks is None else self._masks())
        except Exception as error:
            said = f"{self._environment} failed in action_masks(), {place}: {reason_of(error)}."
            raise InputError(said, "environment-invalid", self._environment, trace=traceback_of(error)) from error

    def _holds(self, info: dict[str, Any], total: float, length: int, seed: int | None) -> bool:
        """Return whether the episode would count as solved if it ended now, if that matters or costs nothing."""
        if self._environment.success_at == "any":
            return bool(self._judge(info, total, length, seed))
        return self._key is not None and is_true(info.get(self._key, False))

    def _judge(self, info: dict[str, Any], total: float, length: int, seed: int | None) -> bool | None:
        try:
            return self._solved(info, total, length)
        except Exception as error:
            place, reason = f"the episode with seed {seed}", why_unknown(error)
            sentence = f"{self._environment}: whether {place} succeeded cannot be told: {reason}."
            raise InputError(sentence, "environment-invalid", self._environment, "success") from error

    def _begin(self, start: EpisodeStart) -> tuple[Any, dict[str, Any], Act]:
        """Reset the environment, and make the expert's function for the new episode."""
        try:
            observation, info = self._copy.reset(seed=start.seed, options=thaw(start.options) or None)
        except CopyError as error:
            place = f"at the start of the episode with seed {start.seed}"
            sentence = f"{self._environment} failed, {place}: it {error.what}."
            raise InputError(sentence, "environment-invalid", self._environment, trace=error.trace) from error
        with self._limit:
            return observation, info, self._show(self._env)

    def _ask(self, act: Act, observation: Any, place: str) -> Any:
        """Return the expert's action. Arrays are copied in both directions."""
        try:
            with self._limit:
                action = detached(act(detached(observation)))
            # Convert lists to arrays, which environments expect: a list times two is a longer list.
            return np.asarray(action) if isinstance(action, (list, tuple)) else action
        except InputError:
            raise
        except Exception as error:
            reason, trace = reason_of(error), traceback_of(error)
            if isinstance(error, Overdue):
                reason = f"it {late(self._limit.seconds, 'its action')}"
            sentence = f"The expert {self._expert.source} failed, {place}: {reason}."
            raise InputError(sentence, "expert-invalid", self._expert.source, trace=trace) from error

    def _step(self, action: Any, place: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        try:
            result = self._copy.step(detached(action))
        except CopyError as error:
            sentence = (
                f"{self._environment} failed with the action {action!r} of the expert {self._expert.source}, {place}: "
                f"it {error.what}."
            )
            raise InputError(sentence, "environment-invalid", self._environment, trace=error.trace) from error
        sentence = (
            f"{self._environment} gave the reward {result[1]} {place}, played by {self._expert.source}; "
            "rewards must be finite numbers."
        )
        require(math.isfinite(result[1]), sentence, "environment-invalid", self._environment)
        return result


def _mask(given: Any) -> np.ndarray | None:
    """Return a copy of an action mask, or `None` if the value is not a mask."""
    try:
        mask = np.array(given)
    except ValueError:
        return None
    return mask.astype(bool) if mask.ndim == 1 and mask.dtype.kind in "biuf" else None


def _stacked(masks: list[np.ndarray | None]) -> np.ndarray | None:
    """Return the masks of an episode as one array, or `None` if they are incomplete or differ in length."""
    told = [mask for mask in masks if mask is not None]
    return np.stack(told) if len(told) == len(masks) and len({len(mask) for mask in told}) == 1 else None


def _checked(expert: Expert, action: Any, space: gym.Space[Any], place: str) -> np.ndarray:
    """Return an action in the type of its space.

    Raises:
        InputError: If the action is not in the space; the message names the wrong number.
    """
    given: Any = None
    try:
        given = np.asarray(action)
        with np.errstate(over="ignore", invalid="ignore"):
            stored: np.ndarray = given.astype(space.dtype)
        fits = given.dtype.kind in "fiub" and given.shape == space.shape
        if stored.dtype.kind != "f":
            # Refuse integer-valued floats, because an environment may use the action as an index.
            fits = fits and np.can_cast(given.dtype, stored.dtype, "same_kind") and np.array_equal(stored, given)
    except (TypeError, ValueError, OverflowError):
        fits = False
    gives = f"The expert {expert.source} gives the action {action!r} {place}"
    if fits and isinstance(space, spaces.Box):
        sentence = f"{gives}; actions must be finite numbers."
        require(bool(np.isfinite(stored).all()), sentence, "expert-invalid", expert.source)
        wrong = outside(stored[None], space)
        sentence = f"{gives}, and {wrong and wrong[1]}; let the expert clip or rescale its actions."
        require(wrong is None, sentence, "expert-invalid", expert.source)
    elif fits:
        fits = space.contains(stored if stored.shape else stored[()])
    sentence = f"{gives}, which is not in {space if space.shape == () else describe_space(space)}."
    require(fits, sentence, "expert-invalid", expert.source)
    return stored
