"""From an `Environment` to copies that stable-baselines3 can step, seeded episode by episode and watched."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecTransposeImage,
)

from rlstages.environments.batched import BatchedVecEnv
from rlstages.environments.guarding import CopyError, Guarded, late, reason_of, traceback_of
from rlstages.environments.inprocess import InProcess
from rlstages.environments.monitor import EnvironmentFault, EpisodeMonitor, Warn, log_warning
from rlstages.environments.seeding import EpisodeSeeds, Purpose, SeededEpisodes
from rlstages.environments.watchdog import Overdue, TimeLimit
from rlstages.environments.workers import Workers
from rlstages.errors import InputError, nearest
from rlstages.randomness import random_state_kept
from rlstages.references import add_sources, is_reference, resolve, sources
from rlstages.specs import Environment


def make_environment(spec: Environment) -> gym.Env[Any, Any]:
    """Make one copy of an environment.

    Raises:
        InputError: If the id, a module or a wrapper does not exist, the environment refuses its arguments, or it is
            not made in time.
    """
    with TimeLimit(spec.step_timeout, f"The making of {spec}"):
        return _make(spec)


def _make(spec: Environment) -> gym.Env[Any, Any]:
    maker = _maker(spec.id)
    try:
        env = maker(**spec.kwargs)
    except InputError:
        raise
    except Overdue as error:
        raise InputError(f"{spec} {late(spec.step_timeout, 'being made')}.", trace=traceback_of(error)) from error
    except ImportError as error:
        raise InputError(f"{spec} needs a package that is not installed: {error}") from error
    except Exception as error:
        raise InputError(f"{spec} cannot be made: {reason_of(error)}.", trace=traceback_of(error)) from error
    if not isinstance(env, gym.Env):
        raise InputError(f"{spec.id!r} returned a {type(env).__name__}, which is no gymnasium environment.")
    wrapped: gym.Env[Any, Any] = env
    for wrapper in spec.wrappers:
        wrap = resolve(wrapper)
        try:
            wrapped = wrap(wrapped)
        except Exception as error:
            raise InputError(f"{wrapper} cannot wrap {spec}: {reason_of(error)}.", trace=traceback_of(error)) from error
    return wrapped


def make_vec_env(
    spec: Environment,
    n_envs: int,
    run_seed: int,
    stage: int,
    purpose: Purpose = Purpose.TRAINING,
    warn: Warn = log_warning,
) -> VecEnv:
    """Make copies of an environment behind stable-baselines3's interface.

    Every episode of every copy has a seed of its own (`episode_seed`), so an environment's state is its episode's seed
    and the actions since. Images are moved to channels first, as stable-baselines3 does.

    Args:
        spec: What to make.
        n_envs: Number of copies.
        run_seed: Of the run.
        stage: Index of the stage.
        purpose: What the episodes are played for.
        warn: Takes a sentence about what is doubtful in the environment's numbers; one for each kind.
    """
    batched = require_batched(spec)
    seeds = [EpisodeSeeds(run_seed, stage, purpose, copy) for copy in range(n_envs)]
    env: BatchedVecEnv | InProcess | Workers
    with random_state_kept():
        makers: list[Callable[[], SeededEpisodes]] = [_MakeCopy(spec, s, copy) for copy, s in enumerate(seeds)]
        if batched is not None and spec.vectorize in ("auto", "batched"):
            env = BatchedVecEnv(batched(num_envs=n_envs, **spec.kwargs), seeds, spec.step_timeout)
        elif spec.vectorize == "subprocess":
            try:
                env = Workers(makers, spec.step_timeout)
            except CopyError as error:
                raise EnvironmentFault(f"{spec}: copy {error.copy} {error.what}, when it was made.") from error
        else:
            env = InProcess(makers, spec.step_timeout)
    monitor = EpisodeMonitor(env, spec, warn)
    return VecTransposeImage(monitor) if _has_images_last(monitor.observation_space) else monitor


def require_batched(spec: Environment) -> Callable[..., Any] | None:
    """Return what makes an environment's batched form, or `None` if it has none.

    Raises:
        InputError: If it has none and the spec asks for it.
    """
    batched = _batched_class(spec)
    if spec.vectorize == "batched" and batched is None:
        raise InputError(
            f"{spec} has no batched form that resets single copies by reset_mask, or it has wrappers; "
            'leave out vectorize="batched".'
        )
    return batched


class _MakeCopy:
    """Makes one copy, in this process or in a worker; it carries where modules from files are."""

    def __init__(self, spec: Environment, seeds: EpisodeSeeds, copy: int) -> None:
        self._spec, self._seeds, self._copy = spec, seeds, copy
        self._sources: dict[str, Path] = sources()

    def __call__(self) -> SeededEpisodes:
        add_sources(self._sources)
        env = Guarded(make_environment(self._spec), self._copy, self._spec.step_timeout)
        return SeededEpisodes(env, self._seeds)


def _maker(id: str) -> Callable[..., Any]:
    """Return what makes the environment: a named callable, or gymnasium's registry."""
    if is_reference(id):
        found = resolve(id)
        if callable(found):
            return found  # type: ignore[no-any-return]
        raise InputError(f"{id!r} is a {type(found).__name__}, which cannot be called to make an environment.")
    _find_spec(id)
    return lambda **kwargs: gym.make(id, **kwargs)


def _find_spec(id: str) -> Any:
    """Return gymnasium's entry for an id, importing the module that it names.

    Raises:
        InputError: If there is none.
    """
    module, colon, name = id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise InputError(f"{id!r}: there is no module {error.name!r}; install it, or correct the name.") from None
        except Exception as error:
            raise InputError(f"{id!r}: {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return gym.spec(name)
    except gym.error.Error as error:
        hint = nearest(name, gym.registry) or nearest(re.sub(r"-v\d+$", "", name), gym.registry)
        reason = "" if hint else f" {error}"
        raise InputError(f"There is no environment {id!r}.{hint}{reason}") from None


def _batched_class(spec: Environment) -> Callable[..., Any] | None:
    """Return what makes the batched form, if there is one that resets single copies."""
    name = spec.id.rpartition(":")[2]
    if spec.wrappers or name.isidentifier():
        return None
    entry = _find_spec(spec.id).vector_entry_point
    if not isinstance(entry, str):
        return None
    found = resolve(entry)
    mode = str(getattr(found, "metadata", {}).get("autoreset_mode", ""))
    return found if mode.lower().endswith("disabled") else None


def _has_images_last(space: gym.Space[Any]) -> bool:
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return any(
        isinstance(part, spaces.Box) and is_image_space(part) and not is_image_space_channels_first(part)
        for part in parts
    )
