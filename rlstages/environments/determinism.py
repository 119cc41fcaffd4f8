"""Whether an environment can be brought back by what a checkpoint keeps of it: found out by trying, never assumed.

A checkpoint keeps each episode's seed and actions so far, or the arrays that a batched environment gives away. That a
pickle or a deep copy of an environment 'works' says nothing: MuJoCo's loses the state without a word.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from rlstages.environments.making import make_vec_env
from rlstages.environments.monitor import EpisodeMonitor, different_copies, monitor_of
from rlstages.errors import Fault
from rlstages.randomness import random_state_kept
from rlstages.specs import Environment

EPISODES, HALFWAY = 3, 10
"""Episodes that each copy lives through, and steps that it is under way in the next one, when it is interrupted."""
BEFORE, AFTER = 2_000, 300
"""Steps after which it is interrupted all the same, and steps that are compared."""
SECONDS = 1.0
"""How long either of these may take, in seconds of this process: a busy machine must not make the check laxer."""


def doubts_about(environment: Environment) -> list[str]:
    """Return why a run in this environment is less exact than others, in sentences; none if it is as exact as any.

    One pair of copies lives through whole episodes and into others. A new pair is brought to the same point as a
    resumed run would bring it. From there both have to see the same. An environment that fails is not judged.
    """
    apart = environment.vectorize == "subprocess"
    here = replace(environment, vectorize="in-process") if apart else environment
    with random_state_kept():
        lived, anew = (monitor_of(make_vec_env(here, 2, 0, 0)) for _ in range(2))
        try:
            steps = _live(lived)
            _, lost = anew.load_state_dict(lived.state_dict())
            differs = "the observations" if lost else _play_on(lived, anew)
        except Fault:
            return []
        finally:
            lived.close()
            anew.close()
    doubts = []
    if lived.resets_itself:
        doubts.append(
            f"{environment} resets its copies by itself and takes one seed for all of them, so an episode has no seed "
            "of its own: with what it begins depends on everything that was played before."
        )
    if differs is not None:
        how = "by a snapshot of its arrays" if lived.resets_itself else "by the seed and actions of an episode"
        doubts.append(
            f"{environment} cannot be brought back {how} ({differs} came out otherwise after {steps} steps), so a run "
            "that is interrupted in it goes on close to, but not exactly, as it would have."
        )
    return doubts


def _live(env: EpisodeMonitor) -> int:
    """Play until each copy has ended episodes and is under way in another; return the number of steps."""
    env.reset()
    env.action_space.seed(0)
    started, ended = time.process_time(), np.zeros(env.num_envs, dtype=np.int64)
    steps = 0
    while steps < BEFORE:
        _, _, dones, _ = env.step(_actions(env))
        steps += 1
        ended += dones
        late = time.process_time() - started > SECONDS
        if late or (ended.min() >= EPISODES and env.lengths.min() >= HALFWAY):
            break
    env.take()
    return steps


def _play_on(lived: EpisodeMonitor, anew: EpisodeMonitor) -> str | None:
    """Play the same actions in both; return what differs."""
    started = time.process_time()
    for _ in range(AFTER):
        if time.process_time() - started > SECONDS:
            break
        actions = _actions(lived)
        seen, rewards, dones, _ = lived.step(actions)
        seen_anew, rewards_anew, dones_anew, _ = anew.step(actions)
        if not np.array_equal(dones, dones_anew):
            return "the ends of episodes"
        if not np.array_equal(rewards, rewards_anew):
            return "the rewards"
        if different_copies(seen, seen_anew):
            return "the observations"
    return None


def _actions(env: EpisodeMonitor) -> Any:
    return np.stack([env.action_space.sample() for _ in range(env.num_envs)])
