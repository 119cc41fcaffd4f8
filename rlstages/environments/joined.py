"""Joined environments: those of a stage, and those of earlier stages that are rehearsed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rlstages.environments.make import make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.reports import Warn, log_warning
from rlstages.specs.environment import Environment

Allotment = list[tuple[Environment, int]]
"""Environments, and their numbers."""


def allot(own: Environment, earlier: Sequence[Environment], n_envs: int, rehearsing: int) -> Allotment:
    """Decide how many environments run which variant: first the stage's own, then each earlier one once, in turn.

    Args:
        own: Stage's environment.
        earlier: Those to rehearse; where there are more of them than copies, the last ones have none.
        n_envs: Copies in all.
        rehearsing: Number of environments that rehearse.
    """
    turns = [len(range(number, rehearsing, len(earlier))) for number in range(len(earlier))]
    return [(own, n_envs - rehearsing), *((other, turn) for other, turn in zip(earlier, turns, strict=True) if turn)]


def make_joined(allotment: Allotment, run_seed: int, stage: int, warn: Warn = log_warning) -> VecEnv:
    """Make copies of environments whose spaces are equal, for training.

    Args:
        allotment: What to make.
        run_seed: Seed of the run.
        stage: Index of the stage.
        warn: Function that takes warnings, as for `make_vec_env`.
    """
    parts: list[VecEnv] = []
    first = 0
    try:
        for environment, number in allotment:
            parts.append(make_vec_env(environment, number, run_seed, stage, warn=warn, first=first))
            first += number
    except BaseException:
        for part in parts:
            part.close()
        raise
    return parts[0] if len(parts) == 1 else Joined(parts)


def parts_of(env: VecEnv) -> list[VecEnv]:
    """Return the parts of joined environments, each with its own monitor, or the environments as the only part."""
    inside = env
    while isinstance(inside, VecEnvWrapper):
        inside = inside.venv
    return inside.parts if isinstance(inside, Joined) else [env]


def idle_copies(env: VecEnv) -> np.ndarray | None:
    """Return a mask of environments whose last step was only a reset, or `None` if there are none."""
    monitors = [monitor_of(part) for part in parts_of(env)]
    if all(monitor.idle is None for monitor in monitors):
        return None
    idle = [np.zeros(monitor.num_envs, bool) if monitor.idle is None else monitor.idle for monitor in monitors]
    return np.concatenate(idle)


class Joined(VecEnv):
    """Several vectorised environments as one vectorised environment.

    Each part keeps its own processes or batch, episode seeds, success rule, and a monitor that names it and
    counts its environments from 0 in what it reports.

    Args:
        parts: Vectorised environments with equal spaces, in order.

    Attributes:
        parts: The parts, in order.
    """

    def __init__(self, parts: Sequence[VecEnv]) -> None:
        self.parts = list(parts)
        ends = np.cumsum([part.num_envs for part in parts]).tolist()
        self._slices = [slice(end - part.num_envs, end) for part, end in zip(parts, ends, strict=True)]
        super().__init__(ends[-1], parts[0].observation_space, parts[0].action_space)

    def reset(self) -> Any:
        """Start an episode in each environment."""
        return concatenated([part.reset() for part in self.parts])

    def step_async(self, actions: np.ndarray) -> None:
        """Send each part its actions."""
        for part, own in zip(self.parts, self._slices, strict=True):
            part.step_async(actions[own])

    def step_wait(self) -> Any:
        """Wait for all parts."""
        observations, rewards, dones, infos = zip(*(part.step_wait() for part in self.parts), strict=True)
        return concatenated(observations), np.concatenate(rewards), np.concatenate(dones), sum(infos, start=[])

    def close(self) -> None:
        """Close all parts."""
        for part in self.parts:
            part.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of each environment."""
        if attr_name == "render_mode":
            # Nothing draws these environments, and stable-baselines3 wants them all to draw alike.
            return [None] * self.num_envs
        return [part.get_attr(attr_name, [copy])[0] for part, copy in self._places(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of each environment."""
        for part, copy in self._places(indices):
            part.set_attr(attr_name, value, [copy])

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of each environment."""
        places = self._places(indices)
        return [part.env_method(method_name, *args, indices=[copy], **kwargs)[0] for part, copy in places]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Say of each environment whether it is wrapped in a class."""
        return [part.env_is_wrapped(wrapper_class, [copy])[0] for part, copy in self._places(indices)]

    def _places(self, indices: Any) -> Iterator[tuple[VecEnv, int]]:
        places = [(part, copy) for part in self.parts for copy in range(part.num_envs)]
        return (places[index] for index in self._get_indices(indices))


def concatenated(observations: Sequence[Any]) -> Any:
    """Join the observations of several parts along the axis of environments."""
    if isinstance(observations[0], dict):
        return {key: np.concatenate([part[key] for part in observations]) for key in observations[0]}
    return np.concatenate(observations)
