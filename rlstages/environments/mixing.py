"""Whether environments in one process disturb each other, as where a module holds the one simulator."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.utils import set_random_seed

from rlstages.environments.guard import CopyError, Guarded
from rlstages.environments.make import make_environment
from rlstages.reproducibility import random_state, set_random_state
from rlstages.specs.environment import Environment

MIXING_STEPS, MIXING_SECONDS, LATE = 150, 0.2, 3
"""Steps that are compared, the seconds of this process after which fewer suffice, and at which step the other
copy comes to be, as those of an evaluation do in the midst of training."""
MIXING_SECONDS_TO_END, TURNS = 1.0, 6

Told = list[tuple[Any, ...]]
WAITING = 4.0


def stopwatch() -> Callable[[], float]:
    """Return a function that tells the seconds of this process since now.

    A busy machine must not make a check laxer, so what other processes take does not count. But an environment that
    waits for its simulator must not hold the check up for long: a quarter of the time on the clock counts at least.
    """
    process, clock = time.process_time(), time.monotonic()
    return lambda: max(time.process_time() - process, (time.monotonic() - clock) / WAITING)


def copies_mix(one: gym.Env[Any, Any], other: gym.Env[Any, Any]) -> bool:
    """Say whether an environment sees something else when another is stepped in between.

    It is also true of an environment that sees something else for other reasons; `fresh_copies_mix` tells.

    Args:
        one: Environment behind its guard, which has been played in or not.
        other: Another one.
    """
    try:
        alone = _play(one)
        return _differ(alone, _play(one, lambda: other))
    except CopyError:
        return False


def fresh_copies_mix(environment: Environment) -> bool:
    """Say whether that is so of new environments, which then share a state."""

    def make(copy: int = 0) -> gym.Env[Any, Any]:
        return Guarded(make_environment(environment), copy, environment.step_timeout)

    opened: list[gym.Env[Any, Any]] = []

    def another() -> gym.Env[Any, Any]:
        opened.append(make(1))
        return opened[-1]

    told = []
    try:
        # The first instance clears what earlier ones have left in a shared state.
        for beside in (None, None, None, another):
            set_random_seed(0)
            opened.append(make())
            told.append(_play(opened[0], beside, to_the_end=True))
            while opened:
                opened.pop().close()
        if not _differ(told[1], told[2]):
            return _differ(told[1], told[3])
        opened += [make(), make(1)]
        return _is_moved(*opened)
    except CopyError:
        return False
    finally:
        while opened:
            opened.pop().close()


def _play(
    env: gym.Env[Any, Any], beside: Callable[[], gym.Env[Any, Any]] | None = None, to_the_end: bool = False
) -> Told:
    """Return what an environment shows from a seed on, alone or with another one stepped in between.

    Each has the global generators as if it were alone: what one draws from them, the other does not miss.

    Args:
        env: Environment.
        beside: Makes the other one.
        to_the_end: Whether to play until its last episode ends, if that does not take too long.
    """
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(MIXING_STEPS)]
    set_random_seed(0)
    spent, own, told = stopwatch(), _Player(env, 0), Told()
    other: _Player | None = None
    for step, action in enumerate(actions):
        if spent() > MIXING_SECONDS * (1 if beside is None else 3):
            break
        told.append(own.play(action))
        if beside is not None and step >= LATE:
            if other is None:
                other = _Player(beside(), 8_191)
            other.play(actions[-1 - step])
    spent = stopwatch()
    while to_the_end and not own.ended and spent() < MIXING_SECONDS_TO_END:
        own.play(env.action_space.sample())
    return told


def _is_moved(one: gym.Env[Any, Any], other: gym.Env[Any, Any]) -> bool:
    """Say whether a step changes much more of what an environment shows if another one takes some in between.

    That shows a shared state where seeds decide nothing. All changes with such steps must be larger than twice those
    without: by luck that is so in fewer than one of 900 environments.
    """
    changes: list[list[float]] = [[], []]
    one.action_space.seed(0)
    # The same at every step: those at random may cancel each other.
    action = one.action_space.sample()
    for turn in range(2 * TURNS):
        between = turn % 2
        other.reset(seed=8_191 + turn)
        one.reset(seed=turn)
        before = one.step(action)[0]
        for _ in range(TURNS * between):
            if any(other.step(action)[2:4]):
                break
        changes[between].append(_distance(before, one.step(action)[0]))
    return min(changes[1]) > 2 * max(changes[0])


def _distance(seen: Any, later: Any) -> float:
    """Return by how much two observations differ, all numbers together."""
    pairs = [(seen[key], later[key]) for key in seen] if isinstance(seen, dict) else [(seen, later)]
    return float(sum(np.abs(np.asarray(b, np.float64) - np.asarray(a, np.float64)).sum() for a, b in pairs))


class _Player:
    """An environment with its own state of the global generators, which begins episodes with its own seeds.

    Attributes:
        ended: Whether it is between two episodes.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int) -> None:
        self._env, self._seed, self.ended = env, seed, True
        self._random = random_state()

    def play(self, action: Any) -> tuple[Any, ...]:
        """Take a step, or begin the next episode; return what is seen, in arrays of its own."""
        outside = random_state()
        set_random_state(self._random)
        if self.ended:
            self._seed, self.ended = self._seed + 1, False
            given: tuple[Any, ...] = self._env.reset(seed=self._seed)[:1]
        else:
            given = self._env.step(action)[:4]
            self.ended = bool(given[2] or given[3])
        self._random = random_state()
        set_random_state(outside)
        seen, *rest = given
        parts = seen.values() if isinstance(seen, dict) else [seen]
        return (*(np.array(part) for part in parts), *rest)


def _differ(told: Told, others: Told) -> bool:
    return any(
        not np.array_equal(part, part_too)
        for row, row_too in zip(told, others, strict=False)
        for part, part_too in zip(row, row_too, strict=False)
    )
