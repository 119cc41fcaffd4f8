"""The preflight: checks of all stages before step 0."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.preprocessing import is_image_space

from rlstages.demonstrations.episodes import Demonstration, Demonstrations
from rlstages.demonstrations.fitting import place_demonstrations
from rlstages.demonstrations.kept import Kept
from rlstages.environments.action_units import ONLY_BOUNDS, differ_in_bounds_only, doubts_about_range
from rlstages.environments.determinism import doubts_about
from rlstages.environments.lookup import batched_maker
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.seeding import Purpose
from rlstages.environments.spaces import describe_space, space_to_data, spell_space
from rlstages.environments.statistics import refuse_running_statistics
from rlstages.environments.watchdog import watching
from rlstages.errors import InputError, require
from rlstages.learners.fit import require_actions, require_fit
from rlstages.play.smoke_check import ENDLESS, Trial, try_episodes
from rlstages.reproducibility import processors
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.base import GROUP
from rlstages.specs.criteria import spend
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.references import hidden
from rlstages.specs.serialization import refuse_unfindable
from rlstages.specs.stages.base import StageSpec
from rlstages.specs.stages.sequence import gate_after, refuse_undemonstrated
from rlstages.stages.runner import Setting, runner_of

ARRAYS = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
DEAR_STEP = 1e-3
"""Seconds of a step from which environments in processes of their own may pay (benchmarks/environments.py)."""
DECIDABLE_ATTEMPTS, LEAST_PIXELS = 10, 36


@dataclass(frozen=True)
class Spaces:
    """The spaces that all environments of a curriculum share.

    Attributes:
        observation: Observation space of the policy, with bounds that include those of all environments.
        action: Action space in the environments' own units.
    """

    observation: gym.Space[Any]
    action: gym.Space[Any]


@dataclass(frozen=True)
class Checked(Spaces):
    """The result of a preflight.

    Attributes:
        doubts: Warnings for the user: sentences on what will work, but not well.
    """

    doubts: tuple[str, ...]


def preflight(curriculum: Curriculum, *, trust_pickle: bool = False, kept: Kept | None = None) -> Checked:
    """Check all stages of a curriculum on this machine.

    Args:
        curriculum: What is to be run.
        trust_pickle: Whether an expert's model zip may be loaded.
        kept: Demonstrations of the run whose policy it is to start with.

    Returns:
        The spaces of its environments, and doubts that do not stop a run.

    Raises:
        InputError: If a stage cannot work. The message names the stage, what is wrong, and what to do.
    """
    with watching():
        return _preflight(curriculum, trust_pickle, kept)


def _preflight(curriculum: Curriculum, trust_pickle: bool, kept: Kept | None) -> Checked:
    _check_device(curriculum.agent)
    refuse_unfindable(curriculum.agent, GROUP)
    for stage in curriculum.stages:
        with _naming(stage):
            refuse_unfindable(stage, "rlstages.stages")
            runner_of(stage)
    spaces = _shared_spaces(curriculum)
    require_fit(curriculum.agent, spaces.observation, spaces.action)
    if kept is None:
        refuse_undemonstrated(curriculum.stages)
    else:
        place_demonstrations(str(kept.file), kept.demonstrations(), spaces.observation, spaces.action)
    tried: dict[Environment, Trial] = {}
    shown: dict[Environment, Demonstrations] = {}
    doubts: list[str] = []
    for index, stage in enumerate(curriculum.stages):
        with _naming(stage):
            _check_criterion(stage)
            if stage.environment not in tried:
                tried[stage.environment] = try_episodes(stage.environment)
            check = getattr(runner_of(stage), "check", None)
            if check is not None:
                gate, trial = gate_after(curriculum.stages, index), tried[stage.environment]
                setting = Setting(spaces.observation, spaces.action, curriculum.agent, gate, trial, trust_pickle)
                found = check(stage, setting)
                doubts += found.doubts
                if found.shown is not None:
                    shown[stage.environment] = found.shown
    for stage in curriculum.stages:
        with _naming(stage):
            _check_success(stage, tried, shown)
    for environment in set(curriculum.held_out) - set(tried):
        with _naming("held_out"):
            try_episodes(environment)
    for environment, trial in tried.items():
        with _naming(next(stage for stage in curriculum.stages if stage.environment == environment)):
            doubts += _endlessness(environment, trial.unended, len(shown.get(environment, ())) > 0)
        doubts += _silence(environment, trial)
    doubts += doubts_about_range(spaces.action)
    doubts += [*hidden(), *_flattened_images(curriculum.agent, spaces.observation)]
    trained = _trained(curriculum)
    for environment in trained:
        doubts += doubts_about(environment, warn=doubts.append)
        doubts += slowness(environment, tried[environment].step_seconds, curriculum.agent.n_envs)
    for environment in [other for other in tried if other not in trained]:
        doubts += doubts_about(environment, trained=False, warn=doubts.append)
    return Checked(spaces.observation, spaces.action, tuple(doubts))


def _trained(curriculum: Curriculum) -> list[Environment]:
    """Return the distinct environments in which a stage trains or rehearses."""
    found: list[Environment] = []
    for index, stage in enumerate(curriculum.stages):
        found += stage.trained_in(curriculum.stages[:index])
    return list(dict.fromkeys(found))


def _check_device(agent: Agent) -> None:
    kind = agent.device.split(":")[0]
    sentence = "Agent: device is 'cuda', but torch finds no GPU; use 'cpu'."
    require(kind != "cuda" or torch.cuda.is_available(), sentence, "unavailable", "Agent", "device")
    mps = kind != "mps" or torch.backends.mps.is_available()
    require(mps, "Agent: device is 'mps', but torch finds none; use 'cpu'.", "unavailable", "Agent", "device")


def _shared_spaces(curriculum: Curriculum) -> Spaces:
    """Make an instance of each environment, and require that one network can serve their spaces."""
    found: list[tuple[str, Environment, Spaces]] = []
    places = [(f"stage {stage.name!r}", stage.environment) for stage in curriculum.stages]
    places += [("held_out", environment) for environment in curriculum.held_out]
    for where, environment in places:
        known = [spaces for _, other, spaces in found if other == environment]
        with _naming(where):
            found.append((where, environment, known[0] if known else _spaces_of(environment)))
    first_where, first_environment, first = found[0]
    covering = first.observation
    for where, environment, spaces in found[1:]:
        both = _covering(covering, spaces.observation)
        pairs = {"observation": (first.observation, spaces.observation), "action": (first.action, spaces.action)}
        for what, (one, other) in pairs.items():
            apart = both is None if what == "observation" else one != other
            why = "one network cannot serve both, so wrap one of them"
            if what == "action" and differ_in_bounds_only(one, other):
                why = ONLY_BOUNDS
            sentence = (
                f"{where}: the {what}s of {environment} are {_contrast(other, one)}, those of {first_environment} in "
                f"{first_where} are {_contrast(one, other)}; {why}."
            )
            require(not apart, sentence, "spaces-unsupported", where, f"{what}s")
        covering = both if both is not None else covering
    return replace(first, observation=covering)


def _covering(one: gym.Space[Any], other: gym.Space[Any]) -> gym.Space[Any] | None:
    """Return a space whose bounds include those of both spaces, or `None` if they differ in more than bounds.

    Bounds of observations do not matter to a network, unless they make an image of an array.
    """
    if one == other:
        return one
    if isinstance(one, gym.spaces.Box) and isinstance(other, gym.spaces.Box):
        if one.shape != other.shape or one.dtype != other.dtype:
            return None
        low, high = np.minimum(one.low, other.low), np.maximum(one.high, other.high)
        both = gym.spaces.Box(low, high, one.shape, np.dtype(one.dtype).type)
        return both if is_image_space(one) == is_image_space(other) == is_image_space(both) else None
    if isinstance(one, gym.spaces.Dict) and isinstance(other, gym.spaces.Dict) and set(one) == set(other):
        parts = {key: _covering(part, other[key]) for key, part in one.spaces.items()}
        if all(part is not None for part in parts.values()):
            # Use an ordered dictionary, because gymnasium sorts the keys of a plain one.
            return gym.spaces.Dict(OrderedDict(cast("dict[str, gym.Space[Any]]", parts)))
    return None


def _contrast(space: gym.Space[Any], other: gym.Space[Any]) -> str:
    short = describe_space(space)
    return short if short != describe_space(other) else spell_space(space)


def _spaces_of(environment: Environment) -> Spaces:
    batched_maker(environment)
    _check_spaces(environment)
    # In a process of its own where the environments will be: what does not work there is found out now.
    if environment.vectorize != "subprocess":
        environment = replace(environment, vectorize="in-process")
    env = make_vec_env(environment, 1, 0, 0, Purpose.EVALUATION)
    try:
        return Spaces(env.observation_space, monitor_of(env).action_space)
    finally:
        env.close()


def _check_spaces(environment: Environment) -> None:
    """Refuse spaces that stable-baselines3 could not even make copies of, and wrappers that copies must not have."""
    env = make_environment(environment)
    try:
        parts = env.observation_space.spaces if isinstance(env.observation_space, gym.spaces.Dict) else {}
        flat = not any(isinstance(part, gym.spaces.Dict) for part in parts.values())
        sentence = f"The observations of {environment} are dictionaries in dictionaries; wrap it to flatten them."
        require(flat, sentence, "spaces-unsupported", environment)
        refuse_running_statistics(environment, env)
        for key, part in parts.items():
            sentence = (
                f"The observations of {environment} have {key!r}, a {type(part).__name__}, which no network takes; "
                f"{_remedy(env, key)}."
            )
            require(isinstance(part, ARRAYS), sentence, "spaces-unsupported", environment, key)
        space_to_data(env.observation_space)
        require_actions(env.action_space)
    finally:
        env.close()


def _flattened_images(agent: Agent, space: gym.Space[Any]) -> list[str]:
    """Return a warning if images are flattened although convolutions could take them (at least 36 x 36 pixels)."""
    shape = space.shape or ()
    if agent.policy != "MlpPolicy" or not is_image_space(space) or min(shape[1:]) < LEAST_PIXELS:
        return []
    return [
        f"The observations are images of {' x '.join(map(str, shape[1:]))} pixels, and 'MlpPolicy' takes each of them "
        f"as {math.prod(shape):,} numbers in a row; Agent(policy='CnnPolicy') looks at them with convolutions."
    ]


def _remedy(env: gym.Env[Any, Any], key: str) -> str:
    """Return advice on how to remove a part of observations that is not an array of numbers."""
    if type(env.unwrapped).__module__.startswith("minigrid."):
        return (
            "use wrappers=['minigrid.wrappers:FlatObsWrapper'] and policy='MlpPolicy', or "
            "minigrid.wrappers:ImgObsWrapper, which leaves it out"
        )
    return f"leave {key!r} out (gymnasium.wrappers.FilterObservation), or turn it into numbers in a wrapper"


def _check_criterion(stage: StageSpec) -> None:
    if stage.until is None:
        return
    decidable = stage.until.fewest_episodes(spend(DECIDABLE_ATTEMPTS)) is not None
    sentence = (
        f"{stage.until} cannot be decided in {stage.until.max_episodes} episodes by each of "
        f"{DECIDABLE_ATTEMPTS} confirmations, not even if all episodes succeed; raise max_episodes or margin."
    )
    require(decidable, sentence, "setting-conflict", f"stage {stage.name!r}", "until")


def slowness(environment: Environment, step_seconds: float, copies: int) -> list[str]:
    """Return that copies in processes of their own may be faster, where that is likely and nothing was asked for."""
    cores = processors()
    if step_seconds < DEAR_STEP or min(copies, cores) < 2 or environment.vectorize != "auto":
        return []
    if batched_maker(environment) is not None:
        return []
    return [
        f"A step of {environment} took {step_seconds * 1e3:.1f} ms, and its {copies} copies make theirs one after "
        f"another; this machine has {cores} processors, and Environment(vectorize='subprocess') uses them."
    ]


def _endlessness(environment: Environment, steps: int, ends: bool) -> list[str]:
    """Return a warning if an episode has not ended and no step limit is known.

    Args:
        environment: Environment of the episodes.
        steps: Those of random play after which an episode had not ended; 0 if all is well.
        ends: Whether whole episodes of an expert were seen.

    Raises:
        InputError: If it has had so many steps that scoring a policy would wait for ever.
    """
    if not steps:
        return []
    sentence = (
        f"An episode of random actions in {environment} has not ended within {steps:,} steps, and no limit of steps "
        "was found; give it a time limit, such as gymnasium.wrappers.TimeLimit."
    )
    require(ends or steps < ENDLESS, sentence, "episode-endless", environment)
    return [sentence]


def _silence(environment: Environment, trial: Trial) -> list[str]:
    """Return a warning if only some episodes report success."""
    told = [episode.success is not None for episode in trial.episodes]
    if all(told) or not any(told):
        return []
    return [
        f"Some episodes of {environment} end without {environment.success!r} in their info; they count as not solved."
    ]


def _check_success(
    stage: StageSpec, tried: Mapping[Environment, Trial], shown: Mapping[Environment, Demonstrations]
) -> None:
    """Refuse a criterion of success where no episode told, neither there nor in another variant of the environment."""
    if stage.until is None or not stage.until.needs_success or not tried[stage.environment].silent:
        return
    variants = [e for e in tried if (e.id, e.success) == (stage.environment.id, stage.environment.success)]
    played: list[Episode | Demonstration] = []
    for environment in variants:
        played += [*tried[environment].episodes, *(shown[environment].episodes if environment in shown else ())]
    sentence = (
        f"{stage.environment} does not say whether an episode succeeded: its last info has no "
        f"{stage.environment.success!r}; give Environment(success=...) an info key, a return to reach, or a function."
    )
    require(
        any(episode.success is not None for episode in played),
        sentence,
        "environment-invalid",
        stage.environment,
        "success",
    )


@contextmanager
def _naming(where: StageSpec | str) -> Iterator[None]:
    """Prefix error messages with the stage."""
    place = where if isinstance(where, str) else f"stage {where.name!r}"
    try:
        yield
    except InputError as error:
        sentence = str(error) if str(error).startswith(place) else f"{place}: {error}"
        raise error.retold(sentence, where=place) from error
