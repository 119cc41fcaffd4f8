"""How every episode starts: with a seed of its own, and with options and actions where these are given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages.environments.guard import CopyError, guard_of
from rlstages.environments.spaces import detached
from rlstages.errors import require
from rlstages.specs.plain import FrozenDict, freeze, thaw


class Purpose(IntEnum):
    """What episodes are played for; each has seeds of its own."""

    TRAINING = 0
    DEMONSTRATION = 1
    EVALUATION = 2
    CONFIRMATION = 3
    SCREENING = 4
    TRIAL = 5


def episode_seed(run_seed: int, stage: int, purpose: Purpose, copy: int, number: int) -> int:
    """Return the seed of one episode: a function of these five numbers, and of nothing else."""
    entropy = [run_seed, stage, int(purpose), copy, number]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0] >> 1)


_NO_OPTIONS = FrozenDict()


@dataclass(frozen=True)
class EpisodeStart:
    """What an episode's first observation depends on.

    The steps of the prefix belong to the start: they are neither steps of the policy nor part of the episode's return
    and length. A time limit inside the environment counts them all the same.

    Attributes:
        seed: For `env.reset`; `None` stands for the seed that the environment's next episode has of its own.
        options: For `env.reset`, as JSON has them: the episode's level.
        prefix: Actions that are replayed before the policy takes over, in the environment's own units; numbers, or
            arrays of the action space's shape. They are kept as Python's own numbers.

    Raises:
        InputError: If the options are not what JSON has.
    """

    seed: int | None = None
    options: Mapping[str, Any] = _NO_OPTIONS
    prefix: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Turn everything into Python's own values that cannot be changed."""
        if self.seed is not None and type(self.seed) is not int:
            object.__setattr__(self, "seed", int(self.seed))
        if type(self.options) is not FrozenDict:
            options = freeze(self.options)
            try:
                same = freeze(json.loads(json.dumps(thaw(options), allow_nan=False))) == options
            except (TypeError, ValueError):
                same = False
            sentence = (
                f"The options {self.options!r} of an episode must be a dictionary of texts, numbers, lists and "
                "dictionaries, as in JSON."
            )
            require(
                same and type(options) is FrozenDict, sentence, "setting-type", "EpisodeStart", "options", self.options
            )
            object.__setattr__(self, "options", options)
        if self.prefix:
            object.__setattr__(self, "prefix", tuple(freeze(np.asarray(action).tolist()) for action in self.prefix))

    @property
    def level(self) -> Mapping[str, Any] | None:
        """The options, or `None` where there are none."""
        return self.options or None

    def actions(self, space: gym.Space[Any]) -> np.ndarray:
        """Return the prefix as an array of the action space's type, shape `(k, *action_shape)`.

        Raises:
            InputError: If one of its actions is not in the space.
        """
        for step, action in enumerate(self.prefix):
            try:
                fits = space.contains(np.array(thaw(action), space.dtype))
            except (TypeError, ValueError, OverflowError):
                fits = False
            sentence = f"The action {action} of step {step} of an episode's prefix is not in {space}."
            require(fits, sentence, "setting-range", "EpisodeStart", "prefix", action)
        return np.array([thaw(action) for action in self.prefix], space.dtype).reshape(-1, *(space.shape or ()))

    def to_data(self) -> dict[str, Any]:
        """Return it for a checkpoint."""
        data: dict[str, Any] = {"seed": self.seed}
        if self.options:
            data["options"] = thaw(self.options)
        if self.prefix:
            data["prefix"] = np.array([thaw(action) for action in self.prefix])
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> EpisodeStart:
        """Return what `to_data` was called on."""
        return cls(data["seed"], data.get("options", _NO_OPTIONS), tuple(data.get("prefix", ())))


OWN_START = EpisodeStart()
"""With a seed of the episode's own, and nothing else."""

_COPY = 2**64
"""The number, larger than any episode's, that stands for the environment itself."""


class EpisodeSeeds:
    """The seeds of one environment's episodes, in order.

    Attributes:
        number: Number of the next episode, from 0.
    """

    def __init__(self, run_seed: int, stage: int, purpose: Purpose, copy: int) -> None:
        self.number = 0
        self._place = (run_seed, stage, purpose, copy)

    def next(self) -> int:
        """Return the seed of the next episode."""
        self.number += 1
        return episode_seed(*self._place, self.number - 1)

    def start(self, coming: EpisodeStart, seed: int | None = None) -> EpisodeStart:
        """Return how the next episode starts.

        Args:
            coming: What is wished for.
            seed: To be used whatever else there is; the episode is then none of those that are counted.
        """
        own = self.next() if seed is None else seed
        if seed is None and coming.seed is not None:
            own = coming.seed
        return EpisodeStart(own, coming.options, coming.prefix)

    @property
    def of_copy(self) -> int:
        """The seed of the environment itself, which none of its episodes has."""
        return episode_seed(*self._place, _COPY)


class SeededEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """Starts each episode of an environment with its next seed, unless `reset` is given one, and as `begin_with` says.

    Attributes:
        begun_with: Start of the episode under way.
    """

    def __init__(self, env: gym.Env[Any, Any], seeds: EpisodeSeeds) -> None:
        super().__init__(env)
        self.begun_with = self._coming = OWN_START
        self._episode_seeds = seeds

    def begin_with(self, start: EpisodeStart) -> None:
        """Let the coming episodes start in this way, until another one is given."""
        self._coming = start

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode.

        Args:
            seed: Instead of the episode's own.
            options: Instead of those that `begin_with` has given.

        Returns:
            The observation in which the policy takes over, and the info that came with it.

        Raises:
            CopyError: If the episode ends in its prefix.
        """
        coming = EpisodeStart(self._coming.seed, options, self._coming.prefix) if options else self._coming
        return self._begin(self._episode_seeds.start(coming, seed))

    def replay(self, number: int, start: EpisodeStart, actions: np.ndarray) -> tuple[Any, bool]:
        """Play an episode again up to where its actions so far lead.

        Args:
            number: Number of the episode.
            start: Start of the episode.
            actions: Those that the policy took in it, shape `(k, *action_shape)`.

        Returns:
            The last observation, and whether it belongs to that episode: where it ended before its actions did, the
            next one has begun.
        """
        self._episode_seeds.number = number + 1
        observation, _ = self._begin(start)
        for action in actions:
            # Copy, because the environment may write into its action, and a resumed run needs the actions.
            observation, _, terminated, truncated, _ = self.env.step(detached(action))
            if terminated or truncated:
                return self.reset()[0], False
        return observation, True

    def _begin(self, start: EpisodeStart) -> Any:
        self.begun_with = start
        given = self.env.reset(seed=start.seed, options=thaw(start.options) or None)
        for step, action in enumerate(start.actions(self.action_space) if start.prefix else (), start=1):
            observation, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                what = f"ended an episode in step {step} of the {len(start.prefix)} that it was to begin with"
                raise CopyError(guard_of(self).copy, f"{what}; give EpisodeStart a shorter prefix")
            given = observation, info
        return given
