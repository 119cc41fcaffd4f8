"""Making vectorised environments for stable-baselines3, with seeded episodes and monitors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from rlstages.environments.autoreset import Autoreset, autoreset_of
from rlstages.environments.batched_env import SingleEnv
from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.guard import CopyError, Guarded, late, traceback_of
from rlstages.environments.in_process import InProcess
from rlstages.environments.lookup import batched_maker, maker_of, takes_copies
from rlstages.environments.monitor import EpisodeMonitor
from rlstages.environments.reports import EnvironmentFault, Warn, log_warning
from rlstages.environments.scripts import refuse_unguarded
from rlstages.environments.seeding import EpisodeSeeds, Purpose, SeededEpisodes
from rlstages.environments.subprocesses import Workers
from rlstages.environments.units import with_unit_actions
from rlstages.environments.watchdog import Overdue, TimeLimit
from rlstages.errors import InputError, reason_of, require
from rlstages.reproducibility import random_state_kept
from rlstages.specs.environment import Environment
from rlstages.specs.plain import thaw
from rlstages.specs.references import add_sources, resolve, sources

SHIMMY = (
    "make it one with the package shimmy: its GymV26CompatibilityV0(env=...), or GymV21CompatibilityV0(env=...) where "
    "step() returns four values."
)


def make_environment(spec: Environment) -> gym.Env[Any, Any]:
    """Make one environment.

    Raises:
        InputError: If the id, a module or a wrapper does not exist, the environment refuses its arguments, or it is
            not made in time.
    """
    with TimeLimit(spec.step_timeout, f"The making of {spec}"):
        return _make(spec)


def _make(spec: Environment) -> gym.Env[Any, Any]:
    maker = maker_of(spec.id)
    try:
        env = maker(**thaw(spec.kwargs), **({"num_envs": 1} if takes_copies(maker) else {}))
    except InputError:
        raise
    except Overdue as error:
        raise InputError(
            f"{spec} {late(spec.step_timeout, 'being made')}.", "environment-invalid", spec, trace=traceback_of(error)
        ) from error
    except ImportError as error:
        raise InputError(
            f"{spec} needs a package that is not installed: {error}", "environment-invalid", spec
        ) from error
    except Exception as error:
        raise InputError(
            f"{spec} cannot be made: {reason_of(error)}.", "environment-invalid", spec, trace=traceback_of(error)
        ) from error
    if isinstance(env, gym.vector.VectorEnv):
        env = SingleEnv(env)
    if not isinstance(env, gym.Env):
        raise InputError(f"{spec.id!r} returned {_what_else(env)}", "environment-invalid", spec)
    wrapped: gym.Env[Any, Any] = env
    for wrapper in spec.wrappers:
        wrap = resolve(wrapper)
        try:
            wrapped = wrap(wrapped)
        except Exception as error:
            sentence = f"{wrapper} cannot wrap {spec}: {reason_of(error)}."
            raise InputError(sentence, "environment-invalid", spec, "wrappers", trace=traceback_of(error)) from error
    _require_own_spaces(spec, wrapped)
    return wrapped


def _what_else(made: Any) -> str:
    """Say what a maker returned that is no gymnasium environment, and what to do about it."""
    kind = f"{type(made).__module__}.{type(made).__qualname__}".removeprefix("builtins.")
    told = f"an object of {kind}, which is no gymnasium environment"
    if any(base.__module__.partition(".")[0] == "gym" for base in type(made).__mro__):
        return f"{told} but one of the old package gym; {SHIMMY}"
    if all(hasattr(made, name) for name in ("reset", "step", "observation_space", "action_space")):
        return f"{told}, though it has reset() and step(): derive its class from gymnasium.Env."
    return f"{told}; return an instance of gymnasium.Env."


def _require_own_spaces(spec: Environment, env: gym.Env[Any, Any]) -> None:
    """Refuse spaces of the old gym, which look like gymnasium's and are none."""
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        old = type(space).__module__.partition(".")[0] == "gym"
        sentence = f"The {name} of {spec} is a {type(space).__name__} of the old package gym; {SHIMMY}"
        require(not old, sentence, "spaces-unsupported", spec)


def make_vec_env(
    spec: Environment,
    n_envs: int,
    run_seed: int,
    stage: int,
    purpose: Purpose = Purpose.TRAINING,
    warn: Warn = log_warning,
    first: int = 0,
) -> VecEnv:
    """Make environments behind stable-baselines3's interface.

    Every episode of every environment has a seed of its own (`episode_seed`), so an environment's state is its
    episode's seed and the actions since. Images are moved to channels first, as stable-baselines3 does, and actions are
    taken as a policy gives them (`rlstages.environments.action_units`).

    Args:
        spec: What to make.
        n_envs: Number of environments.
        run_seed: Seed of the run.
        stage: Index of the stage.
        purpose: What the episodes are played for.
        warn: Function that takes a sentence about what is doubtful in the environment's numbers; one for each kind.
        first: Index of the first environment, for the seeds, if others come before it.
    """
    batched = batched_maker(spec)
    seeds = [EpisodeSeeds(run_seed, stage, purpose, first + copy) for copy in range(n_envs)]
    env: BatchedVecEnv | InProcess | Workers
    with random_state_kept():
        makers: list[Callable[[], SeededEpisodes]] = [_MakeCopy(spec, s, copy) for copy, s in enumerate(seeds)]
        if batched is not None:
            env = BatchedVecEnv(_make_batch(spec, batched, n_envs), seeds, spec.step_timeout)
        elif spec.vectorize == "subprocess":
            refuse_unguarded(f"the copies of {spec}")
            try:
                env = Workers(makers, spec.step_timeout)
            except CopyError as error:
                raise EnvironmentFault(
                    f"{spec}: copy {error.copy} {error.what}, when it was made.", where=spec
                ) from error
        else:
            env = InProcess(makers)
    monitor = EpisodeMonitor(env, spec, warn)
    seen = VecTransposeImage(monitor) if _has_images_last(monitor.observation_space) else monitor
    return with_unit_actions(seen)


def _make_batch(spec: Environment, maker: Callable[..., Any], n_envs: int) -> Any:
    """Make a batch of environments.

    Raises:
        InputError: If it refuses its arguments, is none, or does not let its resets be told from its steps.
    """
    try:
        with TimeLimit(spec.step_timeout, f"The making of {spec}"):
            batch = maker(num_envs=n_envs, **thaw(spec.kwargs))
    except Overdue as error:
        raise InputError(
            f"{spec} {late(spec.step_timeout, 'being made')}.", "environment-invalid", spec, trace=traceback_of(error)
        ) from error
    except Exception as error:
        raise InputError(
            f"{spec} cannot be made: {reason_of(error)}.", "environment-invalid", spec, trace=traceback_of(error)
        ) from error
    require(
        all(hasattr(batch, name) for name in ("num_envs", "single_observation_space", "single_action_space")),
        f"{spec.id!r} takes num_envs, but returned a {type(batch).__name__}, which is no gymnasium.vector.VectorEnv.",
        "environment-invalid",
        spec,
    )
    sentence = (
        f'{spec} does not say in metadata["autoreset_mode"] that its copies are reset in the next step or by '
        "reset_mask, so the last observations of its episodes would be lost; "
        'give vectorize="in-process", or a batch that does.'
    )
    require(autoreset_of(batch) is not Autoreset.OTHER, sentence, "environment-invalid", spec, "autoreset_mode")
    return batch


class _MakeCopy:
    """Makes one environment, in this process or in a worker; it carries where modules from files are."""

    def __init__(self, spec: Environment, seeds: EpisodeSeeds, copy: int) -> None:
        self._spec, self._seeds, self._copy = spec, seeds, copy
        self._sources: dict[str, Path] = sources()

    def __call__(self) -> SeededEpisodes:
        add_sources(self._sources)
        if self._spec.vectorize == "subprocess":
            # The global generators of its process, from which the environment may draw.
            set_random_seed(self._seeds.of_copy)
        env = Guarded(make_environment(self._spec), self._copy, self._spec.step_timeout)
        return SeededEpisodes(env, self._seeds)


def _has_images_last(space: gym.Space[Any]) -> bool:
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return any(
        isinstance(part, spaces.Box) and is_image_space(part) and not is_image_space_channels_first(part)
        for part in parts
    )
