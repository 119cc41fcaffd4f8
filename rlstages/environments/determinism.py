"""A test whether an environment depends only on its seed and its actions.

Repeating a run with its seed, and resuming it from a checkpoint, both rely on that. A checkpoint holds each episode's
seed and actions so far, or the arrays that a batched environment returns as its state. Pickles and deep copies of an
environment are unreliable: MuJoCo's lose the state without an error.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from stable_baselines3.common.utils import set_random_seed

from rlstages.environments.in_process import InProcess
from rlstages.environments.make import make_vec_env
from rlstages.environments.mixing import copies_mix, fresh_copies_mix, stopwatch
from rlstages.environments.monitor import EpisodeMonitor, monitor_of
from rlstages.environments.replayed import different_copies
from rlstages.environments.reports import FIRST, Warn, log_warning
from rlstages.environments.statistics import RunningStatistics, reason_in_statistics
from rlstages.errors import Fault
from rlstages.reproducibility import random_state_kept
from rlstages.specs.environment import Environment

EPISODES, HALFWAY = 3, 10
"""Number of complete episodes before the simulated interruption, and steps in the next episode."""
BEFORE, AFTER = 2_000, 300
"""Maximum number of steps before the interruption, and number of steps that are compared."""
SECONDS = 1.0
"""How long either of these may take, as a `stopwatch` tells."""


def doubts_about(environment: Environment, *, trained: bool = True, warn: Warn = log_warning) -> list[str]:
    """Return why a run in this environment is less exact than others, in sentences; none if it is as exact as any.

    One pair of environments lives through whole episodes and into others. A new pair is brought to the same point as a
    resumed run would bring it. From there both have to see the same. Where they do not, or where an environment sees
    something else when another is stepped in between, new environments tell which it is: copies that share a state, a
    seed that does not decide what an episode is, or earlier episodes that leak into later ones. Copies that are to run
    in processes of their own are made so only if they fail in this process. An environment that fails is not judged.

    Args:
        environment: Environment to test.
        trained: Whether it is trained in, so that an interruption can come in the midst of its episodes.
        warn: Function that takes a sentence about what is doubtful in the environments' numbers, one for each kind.
    """
    noted: set[str] = set()

    def tell(sentence: str) -> None:
        what = sentence.partition(FIRST)[0]
        if what not in noted:
            noted.add(what)
            warn(sentence)

    apart = environment.vectorize == "subprocess"
    here = replace(environment, vectorize="in-process") if apart else environment
    with random_state_kept():
        try:
            doubts = _look(here, 2, tell)
            if apart and doubts:
                doubts = _look(environment, 1, tell)
        except Fault:
            return []
    return [sentence for sentence, matters_untrained in doubts if trained or matters_untrained]


def doubt_about_seeds(environment: Environment) -> str | None:
    """Return a warning if episodes with equal seeds differ. An environment that fails is not judged."""
    with random_state_kept():
        try:
            unlike = _unlike_itself(replace(environment, vectorize="in-process"), 1, lambda sentence: None)
        except Fault:
            return None
    return None if unlike is None else _seeds_decide_nothing(environment, unlike)


def _look(environment: Environment, copies: int, warn: Warn) -> list[tuple[str, bool]]:
    """Return warnings, each with whether it also matters without training."""
    with ExitStack() as opened:
        lived = _open(environment, copies, opened, warn)
        together = lived.venv.envs if isinstance(lived.venv, InProcess) else []
        statistics = RunningStatistics(together[0] if together else None)
        steps = _live(lived)
        # Elsewhere than in the first session, as the global generators are when a run is resumed.
        set_random_seed(1)
        anew = _open(environment, copies, opened, warn)
        _, lost = anew.load_state_dict(lived.state_dict())
        differs = "the observations" if lost else _play_on(lived, anew)
        mixes = differs is None and len(together) > 1 and copies_mix(together[0], together[1])
    doubts = []
    if lived.resets_itself:
        sentence = (
            f"{environment} resets its copies by itself and takes one seed for all of them, so an episode has no seed "
            "of its own: with what it begins depends on everything that was played before."
        )
        doubts.append((sentence, False))
    if differs is None and not mixes:
        return doubts
    if together and fresh_copies_mix(environment):
        sentence = (
            f"The copies of {environment} in this process disturb each other: one saw something else when another was "
            "stepped in between, so they share a state. They would learn, and be judged, in episodes that others "
            "change; give Environment(vectorize='subprocess'), which keeps them apart."
        )
        return [*doubts, (sentence, True)]
    unlike = _unlike_itself(environment, copies, warn)
    if unlike is not None:
        doubts.append((_seeds_decide_nothing(environment, unlike), True))
    elif differs is not None:
        how = "by a snapshot of its arrays" if lived.resets_itself else "by the seed and actions of an episode"
        sentence = (
            f"{environment} cannot be brought back {how} ({differs} came out otherwise after {steps} steps), so a run "
            "that is interrupted in it goes on close to, but not exactly, as it would have."
        )
        reason = reason_in_statistics(statistics)
        doubts.append((sentence + reason, bool(reason)))
    return doubts


def _open(environment: Environment, copies: int, opened: ExitStack, warn: Warn) -> EpisodeMonitor:
    """Make copies, which are closed with what is `opened`."""
    env = monitor_of(make_vec_env(environment, copies, 0, 0, warn=warn))
    opened.callback(env.close)
    return env


def _seeds_decide_nothing(environment: Environment, unlike: str) -> str:
    return (
        f"{environment} does not follow its seed ({unlike} came out otherwise in a new copy, with the same seeds and "
        "actions), so two runs or recordings with the same --seed differ, and a run that is interrupted in it goes on "
        "close to, but not exactly, as it would have."
    )


def _unlike_itself(environment: Environment, copies: int, warn: Warn) -> str | None:
    """Play the same in new environments twice, as two runs with the same seed would; return what differs."""
    told: list[list[tuple[Any, Any, Any]]] = []
    for _ in range(2):
        # As a run does at its start: what an environment draws from the global generators is the same in both.
        set_random_seed(0)
        with ExitStack() as opened:
            told.append(_tell(_open(environment, copies, opened, warn)))
    return next((what for one, other in zip(*told, strict=False) if (what := _difference(one, other))), None)


def _tell(env: EpisodeMonitor) -> list[tuple[Any, Any, Any]]:
    """Return what is seen from the start on."""
    env.action_space.seed(0)
    spent, told = stopwatch(), [(env.reset(), np.zeros(env.num_envs), np.zeros(env.num_envs, bool))]
    while len(told) <= AFTER and spent() < SECONDS:
        told.append(env.step(_actions(env))[:3])
    return told


def _difference(one: tuple[Any, Any, Any], other: tuple[Any, Any, Any]) -> str | None:
    (seen, rewards, dones), (seen_too, rewards_too, dones_too) = one, other
    if not np.array_equal(dones, dones_too):
        return "the ends of episodes"
    if not np.array_equal(rewards, rewards_too):
        return "the rewards"
    return "the observations" if different_copies(seen, seen_too) else None


def _live(env: EpisodeMonitor) -> int:
    """Play until each environment has ended episodes and is under way in another; return the number of steps."""
    env.reset()
    env.action_space.seed(0)
    spent, ended = stopwatch(), np.zeros(env.num_envs, dtype=np.int64)
    steps = 0
    while steps < BEFORE:
        _, _, dones, _ = env.step(_actions(env))
        steps += 1
        ended += dones
        late = spent() > SECONDS
        if late or (ended.min() >= EPISODES and env.lengths.min() >= HALFWAY):
            break
    env.take()
    return steps


def _play_on(lived: EpisodeMonitor, anew: EpisodeMonitor) -> str | None:
    """Play the same actions in both; return what differs."""
    spent = stopwatch()
    for _ in range(AFTER):
        if spent() > SECONDS:
            break
        actions = _actions(lived)
        what = _difference(lived.step(actions)[:3], anew.step(actions)[:3])
        if what is not None:
            return what
    return None


def _actions(env: EpisodeMonitor) -> Any:
    return np.stack([env.action_space.sample() for _ in range(env.num_envs)])
