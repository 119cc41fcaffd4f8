"""The batched environment: many environments of one task, stepped by one call.

A batched environment is a `gymnasium.vector.VectorEnv` that never resets an environment by itself. The caller sees the
last observation of an episode as `step` returned it, and starts the next one with
`reset(seed=[...], options={"reset_mask": mask})`, as gymnasium's own vector environments do with
`AutoresetMode.DISABLED` (https://gymnasium.farama.org/api/vector/#gymnasium.vector.AutoresetMode). Every episode
therefore has a seed of its own, and is a function of that seed and the actions since.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from rlstages.environments.autoreset import DISABLED
from rlstages.errors import require

ALL = slice(None)
"""The index of all environments."""


class BatchedEnv(gym.vector.VectorEnv):
    """The base class of batched environments, which step `num_envs` environments in one call.

    A subclass sets `single_observation_space` and `single_action_space` before it calls `super().__init__`, and
    writes `start`, `advance`, `observe` and, if it can be drawn, `draw`.

    Args:
        num_envs: Number of environments.
        render_mode: `None` or `"rgb_array"`.

    Attributes:
        takes_options: Whether episodes may be given options: `start` then has a third parameter, `options`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15, "autoreset_mode": DISABLED}
    single_observation_space: gym.Space[Any]
    single_action_space: gym.Space[Any]

    def __init__(self, num_envs: int, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; it must be None or 'rgb_array'")
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.closed = False
        self.takes_options = "options" in inspect.signature(self.start).parameters
        space = self.single_observation_space
        self._seen: np.ndarray = np.zeros((num_envs, *(space.shape or ())), space.dtype)
        self._seeds = np.random.PCG64()

    # --- what a subclass writes ------------------------------------------------------------------------------

    def start(self, copies: np.ndarray, seeds: np.ndarray) -> None:
        """Begin new episodes.

        Args:
            copies: Indices of the environments to start, shape `(k,)`, int64.
            seeds: One seed for each of them, shape `(k,)`, uint64; the episode depends on nothing else.

        A subclass whose episodes take options gives it the parameter `options: Sequence[Mapping[str, Any]] = ()`: one
        dictionary for each of the environments to start, empty where nothing is asked for. The episode depends on it
        too.
        """
        raise NotImplementedError

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment once.

        Args:
            actions: Shape `(num_envs, *action_shape)`.

        Returns:
            Rewards `(num_envs,)` float64, terminated `(num_envs,)` bool, truncated `(num_envs,)` bool, and infos:
            a dictionary of arrays `(num_envs, ...)`.
        """
        raise NotImplementedError

    def observe(self, copies: np.ndarray | slice = ALL) -> np.ndarray:
        """Return the observations of some environments.

        Args:
            copies: Index into arrays of all environments: `slice(None)` for all of them, or the
                numbers of those that have just begun, shape `(k,)`, int64.

        Returns:
            Shape `(k, *observation_shape)`, in a fresh array.
        """
        raise NotImplementedError

    def draw(self, copy: int) -> np.ndarray:
        """Return a picture of one environment, shape `(height, width, 3)`, uint8."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """Return all that later steps depend on: by default, every array among the public attributes."""
        return {key: value.copy() for key, value in vars(self).items() if _is_state(key, value)}

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from what `state` returned, here or in another instance made with the same arguments.

        Returns:
            The observations of all environments.
        """
        for name, value in state.items():
            setattr(self, name, np.array(value))
        return self._look()

    # --- gymnasium's interface -------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start new episodes in all environments, or in those that `options["reset_mask"]` marks.

        Args:
            seed: One seed per environment; a single number `s` stands for `s, s + 1, ...`; `None` draws fresh ones.
            options: `"reset_mask"`, a boolean mask of shape `(num_envs,)`, default all environments; and
                `"copy_options"`, the options of each environment's new episode, `num_envs` dictionaries, default none.

        Returns:
            The observations of all environments, in an array of their own, and an empty info.

        Raises:
            InputError: If episodes are given options and take none.
        """
        mask, given = ((options or {}).get(name) for name in ("reset_mask", "copy_options"))
        if mask is None:
            self._start(np.arange(self.num_envs), seed, given)
            return self._look(), {}
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask must be a boolean array of shape ({self.num_envs},)")
        copies = np.flatnonzero(mask)
        self._start(copies, seed, given)
        self._seen = self._seen.copy()
        self._seen[copies] = self.observe(copies)
        return self._seen, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment once; an environment whose episode ended must be reset before it is stepped again."""
        rewards, terminated, truncated, infos = self.advance(np.asarray(actions))
        return self._look(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return one picture per environment, or `None` without a render mode."""
        return tuple(self.draw(copy) for copy in range(self.num_envs)) if self.render_mode else None

    def close(self, **kwargs: Any) -> None:
        """Mark the environment closed; it holds nothing that needs to be freed."""
        self.closed = True

    def _start(
        self,
        copies: np.ndarray,
        seed: int | Sequence[int | None] | None,
        given: Sequence[Mapping[str, Any] | None] | None,
    ) -> None:
        """Start episodes in some environments."""
        seeds = self._episode_seeds(seed, copies)
        if not self.takes_options:
            refuse_options(self, given or ())
            self.start(copies, seeds)
        else:
            options = [dict(given[copy] or {}) if given else {} for copy in copies.tolist()]
            self.start(copies, seeds, options=options)  # type: ignore[call-arg]

    def _look(self) -> np.ndarray:
        self._seen = self.observe()
        return self._seen

    def _episode_seeds(self, seed: int | Sequence[int | None] | None, copies: np.ndarray) -> np.ndarray:
        """Return the seeds of the environments' next episodes, drawing those that are not given."""
        if isinstance(seed, (int, np.integer)):
            return np.asarray(copies.astype(np.uint64) + np.uint64(seed))
        seeds: np.ndarray = self._seeds.random_raw(len(copies)) >> np.uint64(1)
        if seed is None:
            return seeds
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds were given for {self.num_envs} copies")
        for place, copy in enumerate(copies.tolist()):
            given = seed[copy]
            if given is not None:
                seeds[place] = given
        return seeds


def refuse_options(batched: Any, given: Sequence[Mapping[str, Any] | None]) -> None:
    """Refuse options for episodes of a batch that takes none.

    Raises:
        InputError: If there are any.
    """
    wanted = next((options for options in given if options), None)
    sentence = (
        f"{batched} takes no options for its episodes, but was given {wanted!r}; write a rlstages.BatchedEnv whose "
        'start() has a parameter "options".'
    )
    require(
        wanted is None or getattr(batched, "takes_options", False), sentence, "setting-conflict", batched, "options"
    )


def _is_state(name: str, value: Any) -> bool:
    return isinstance(value, np.ndarray) and not name.startswith("_")


def info_of(infos: Mapping[str, Any], copy: int) -> dict[str, Any]:
    """Return one environment's part of a batch's infos: arrays by key, with masks under `_key` of who has an entry.

    Source: https://gymnasium.farama.org/api/vector/#gymnasium.vector.VectorEnv.step
    """
    own = {}
    for key, values in infos.items():
        if isinstance(values, dict):
            own[key] = info_of(values, copy)
        elif not key.startswith("_") and ("_" + key not in infos or infos["_" + key][copy]):
            own[key] = values[copy]
    return own


class SingleEnv(gym.Env):
    """One environment of a batched environment behind gymnasium's single-environment interface.

    Both forms run the same code, so they agree step for step when they are given the same seeds and actions.

    Args:
        batched: A `gymnasium.vector.VectorEnv` with one environment.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(self, batched: Any) -> None:
        self.batched = batched
        self.observation_space = batched.single_observation_space
        self.action_space = batched.single_action_space
        self.render_mode = getattr(batched, "render_mode", None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; without a seed, one is drawn from the environment's own generator.

        Raises:
            InputError: If there are options, and the batch takes none.
        """
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**63)) if seed is None else seed
        refuse_options(self.batched, [options])
        given = {"options": {"copy_options": [options]}} if options else {}
        observations, infos = self.batched.reset(seed=episode_seed, **given)
        return _first(observations), info_of(infos, 0)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the one environment."""
        observations, rewards, terminated, truncated, infos = self.batched.step(np.asarray(action)[None])
        return _first(observations), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info_of(infos, 0)

    def render(self) -> np.ndarray | None:
        """Return a picture of shape `(height, width, 3)`, or `None` without a render mode."""
        frames = self.batched.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the batch."""
        self.batched.close()


def _first(observations: Any) -> Any:
    return {key: part[0] for key, part in observations.items()} if isinstance(observations, dict) else observations[0]
