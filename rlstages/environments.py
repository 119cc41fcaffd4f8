"""From an `Environment` to copies that stable-baselines3 can step, seeded episode by episode and watched."""

from __future__ import annotations

import importlib
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecTransposeImage,
)

from rlstages.batched import BatchedVecEnv
from rlstages.episodes import Episode
from rlstages.errors import Fault, InputError, nearest
from rlstages.randomness import random_state_kept
from rlstages.references import add_sources, is_reference, resolve, sources
from rlstages.seeding import EpisodeSeeds, Purpose
from rlstages.spaces import stack
from rlstages.specs import Environment, Success
from rlstages.workers import Workers

_LEAST_REMEMBERED = 64


class EnvironmentFault(Fault):
    """An environment gave something that no learner can use: one sentence names it, the copy and the step."""


def make_environment(spec: Environment) -> gym.Env[Any, Any]:
    """Make one copy of an environment.

    Raises:
        InputError: If the id, a module or a wrapper does not exist, or the environment refuses its arguments.
    """
    maker = _maker(spec.id)
    try:
        env = maker(**spec.kwargs)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{spec} needs a package that is not installed: {error}") from error
    except Exception as error:
        raise InputError(f"{spec} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(env, gym.Env):
        raise InputError(f"{spec.id!r} returned a {type(env).__name__}, which is no gymnasium environment.")
    wrapped: gym.Env[Any, Any] = env
    for wrapper in spec.wrappers:
        wrap = resolve(wrapper)
        try:
            wrapped = wrap(wrapped)
        except Exception as error:
            raise InputError(f"{wrapper} cannot wrap {spec}: {type(error).__name__}: {error}") from error
    return wrapped


def make_vec_env(
    spec: Environment,
    n_envs: int,
    run_seed: int,
    stage: int,
    purpose: Purpose = Purpose.TRAINING,
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
    """
    batched = require_batched(spec)
    seeds = [EpisodeSeeds(run_seed, stage, purpose, copy) for copy in range(n_envs)]
    env: VecEnv
    with random_state_kept():
        if batched is not None and spec.vectorize in ("auto", "batched"):
            env = BatchedVecEnv(batched(num_envs=n_envs, **spec.kwargs), seeds)
        else:
            apart = spec.vectorize == "subprocess"
            makers: list[Callable[[], gym.Env[Any, Any]]] = [_MakeCopy(spec, s, apart) for s in seeds]
            env = Workers(makers) if apart else DummyVecEnv(makers)
    env = EpisodeMonitor(env, spec)
    return VecTransposeImage(env) if _has_images_last(env.observation_space) else env


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


def monitor_of(env: VecEnv) -> EpisodeMonitor:
    """Return the monitor inside a vectorised environment."""
    while not isinstance(env, EpisodeMonitor):
        if not isinstance(env, VecEnvWrapper):
            raise TypeError("the environment has no EpisodeMonitor")
        env = env.venv
    return env


class EpisodeMonitor(VecEnvWrapper):
    """Counts episodes and refuses numbers that are not finite.

    Attributes:
        finished: Episodes that ended since they were last taken, in the order of their end.
    """

    def __init__(self, venv: VecEnv, spec: Environment) -> None:
        super().__init__(venv)
        self.finished: list[Episode] = []
        self._spec = spec
        self._solved = success_rule(spec.success)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._numbers = np.zeros(self.num_envs, dtype=np.int64)
        self._played: list[np.ndarray] = []
        self._last: Any = None

    def reset(self) -> Any:
        """Reset all copies; episodes under way are dropped, and the count of episodes starts again."""
        observations = self.venv.reset()
        self._returns[:] = 0
        self._lengths[:] = 0
        self._numbers[:] = 0
        self.finished.clear()
        self._played.clear()
        self._check(observations)
        self._last = observations
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Send the actions, and remember those of the episodes under way: with their seeds, they are their state."""
        if not isinstance(self.venv, BatchedVecEnv):
            self._played.append(np.array(actions))
            if len(self._played) > 2 * self._lengths.max() + _LEAST_REMEMBERED:
                del self._played[: -1 - int(self._lengths.max())]
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Step, check and count."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._lengths += 1
        if not np.isfinite(rewards).all():
            copy = int(np.flatnonzero(~np.isfinite(rewards))[0])
            self._fault(f"the reward {rewards[copy]}", copy)
        for copy in np.flatnonzero(dones).tolist():
            last = infos[copy]["terminal_observation"]
            self._check(last if isinstance(last, dict) else np.asarray(last), copy)
        self._check(observations)
        self._returns += rewards
        for copy in np.flatnonzero(dones).tolist():
            total, length = float(self._returns[copy]), int(self._lengths[copy])
            solved = self._solved(infos[copy], total, length)
            self.finished.append(Episode(copy, int(self._numbers[copy]), total, length, solved))
            self._returns[copy] = self._lengths[copy] = 0
            self._numbers[copy] += 1
        self._last = observations
        return observations, rewards, dones, infos

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each copy's episode so far, shape `(num_envs,)`."""
        return self._lengths

    def state_dict(self) -> dict[str, Any]:
        """Return where each copy's episode is: its number and actions so far, or the arrays of a batched environment.

        Nothing may be left in `finished`.
        """
        return {
            "numbers": self._numbers.copy(),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "inside": self.venv.state_dict() if isinstance(self.venv, BatchedVecEnv) else self._actions_so_far(),
            "observations": self._last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[Any, list[int]]:
        """Bring each copy's episode back to where it was.

        Returns:
            The observations, and the copies that did not come back as they were: they go on from where replay led, or
            with their next episode where that one could not be played up to there.
        """
        for own, name in ((self._numbers, "numbers"), (self._returns, "returns"), (self._lengths, "lengths")):
            own[:] = state[name]
        numbers = self._numbers.tolist()
        if isinstance(self.venv, BatchedVecEnv):
            observations, ended = self.venv.load_state_dict(state["inside"], numbers)
        else:
            observations, ended = self._replay(state["inside"], numbers)
        self._returns[ended] = self._lengths[ended] = 0
        self._numbers[ended] += 1
        self._last = observations
        return observations, sorted({*ended, *different_copies(observations, state["observations"])})

    def _actions_so_far(self) -> list[np.ndarray]:
        """Return each copy's actions since its episode began."""
        end = len(self._played)
        starts = (end - int(length) for length in self._lengths)
        return [np.array([actions[copy] for actions in self._played[start:]]) for copy, start in enumerate(starts)]

    def _replay(self, so_far: list[np.ndarray], numbers: list[int]) -> tuple[Any, list[int]]:
        """Play episodes again; return the observations and the copies whose episode ended before its actions did."""
        observations, ended = [], []
        for copy, actions in enumerate(so_far):
            [(observation, whole)] = self.venv.env_method("replay", numbers[copy], actions, indices=[copy])
            observations.append(observation)
            if not whole:
                ended.append(copy)
        longest = max(so_far, key=len)
        played = np.zeros((len(longest), self.num_envs, *longest.shape[1:]), longest.dtype)
        for copy, actions in enumerate(so_far):
            played[len(longest) - len(actions) :, copy] = actions
        self._played = list(played)
        return stack(observations, self.observation_space), ended

    def take(self) -> list[Episode]:
        """Return the finished episodes and forget them."""
        taken, self.finished = self.finished, []
        return taken

    def _check(self, observations: Any, copy: int | None = None) -> None:
        """Refuse numbers that are not finite in the observations of all copies, or of one."""
        parts = observations.items() if isinstance(observations, dict) else [("the observation", observations)]
        for name, values in parts:
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                if copy is None:
                    finite = np.isfinite(values).reshape(self.num_envs, -1).all(axis=1)
                    copy = int(np.flatnonzero(~finite)[0])
                self._fault(f"a number in {name} that is not finite", copy)

    def _fault(self, what: str, copy: int) -> None:
        raise EnvironmentFault(
            f"{self._spec}: copy {copy} gave {what} at step {self._lengths[copy]} of its episode "
            f"{self._numbers[copy]}; the policy is as it was before this rollout."
        )


def different_copies(observations: Any, others: Any) -> list[int]:
    """Return the copies whose observations are not the same."""
    if isinstance(observations, dict):
        return sorted({copy for key, part in observations.items() for copy in different_copies(part, others[key])})
    unequal: np.ndarray = (observations != others).reshape(len(observations), -1).any(axis=1)
    return [int(copy) for copy in np.flatnonzero(unequal)]


class SeededEpisodes(gym.Wrapper):
    """Gives each episode the next seed of its copy, unless `reset` is given one."""

    def __init__(self, env: gym.Env[Any, Any], seeds: EpisodeSeeds) -> None:
        super().__init__(env)
        self._episode_seeds = seeds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode."""
        return self.env.reset(seed=self._episode_seeds.next() if seed is None else seed, options=options)

    def replay(self, number: int, actions: np.ndarray) -> tuple[Any, bool]:
        """Play an episode again up to where its actions so far lead.

        Args:
            number: Of the episode.
            actions: Those taken in it, shape `(k, *action_shape)`.

        Returns:
            The last observation, and whether it belongs to that episode: where it ended before its actions did, the
            next one has begun.
        """
        self._episode_seeds.number = number
        observation, _ = self.reset()
        for action in actions:
            observation, _, terminated, truncated, _ = self.env.step(action)
            if terminated or truncated:
                return self.reset()[0], False
        return observation, True


class _MakeCopy:
    """Makes one copy, in this process or in a worker; it carries where modules from files are."""

    def __init__(self, spec: Environment, seeds: EpisodeSeeds, apart: bool) -> None:
        self._spec, self._seeds, self._apart = spec, seeds, apart
        self._sources: dict[str, Path] = sources()

    def __call__(self) -> gym.Env[Any, Any]:
        if self._apart:
            # Ctrl-C reaches every process of a terminal, and the trainer still needs its workers to finish the step.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        add_sources(self._sources)
        return SeededEpisodes(make_environment(self._spec), self._seeds)


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


def success_rule(success: Success) -> Callable[[dict[str, Any], float, int], bool | None]:
    """Return a function of the last info, the return and the length; it gives `None` where success is not defined."""
    if isinstance(success, (int, float)):
        return lambda info, total, length: total > success
    if ":" in success:
        named = resolve(success)
        return lambda info, total, length: bool(named(info, total, length))
    return lambda info, total, length: bool(info[success]) if success in info else None
