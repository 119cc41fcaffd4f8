"""What is wrong or doubtful in the copies of an environment, as an error or a warning that names copy and step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages.environments.guard import CopyError, Note
from rlstages.environments.ranges import Finding, Ranges
from rlstages.errors import Code, Fault
from rlstages.specs.environment import Environment

# What a warning says before this is the same whenever it is found again.
FIRST = " (first seen: "
Warn = Callable[[str], None]
log_warning = logging.getLogger(__name__).warning


class EnvironmentFault(Fault):
    """An environment failed, or gave something that no learner can use.

    One sentence names the environment, the copy, the step and what it was; `trace` is the environment's own traceback,
    if it raised something.
    """

    code: Code = "environment-failed"


class Counts:
    """How far each copy is in its episode.

    Args:
        copies: How many there are.

    Attributes:
        steps: Steps of every copy since all were reset.
        numbers: The number of each copy's episode, from 0, shape `(copies,)`.
        returns: The sum of each episode's rewards so far, shape `(copies,)`.
        lengths: The steps of each episode so far, shape `(copies,)`.
    """

    def __init__(self, copies: int) -> None:
        self.steps = 0
        self.returns = np.zeros(copies)
        self.lengths = np.zeros(copies, dtype=np.int64)
        self.numbers = np.zeros(copies, dtype=np.int64)

    @property
    def begins(self) -> np.ndarray:
        """At which of its steps each copy's episode under way began, shape `(copies,)`."""
        begins: np.ndarray = self.steps - self.lengths
        return begins

    def clear(self) -> None:
        """Count from nothing again."""
        self.steps = 0
        self.returns[:] = self.lengths[:] = self.numbers[:] = 0

    def next(self, copies: list[int]) -> None:
        """Begin the next episode of some copies."""
        self.returns[copies] = self.lengths[copies] = 0
        self.numbers[copies] += 1

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take all counts from a checkpoint, under their names."""
        self.steps = state["steps"]
        for own, name in ((self.numbers, "numbers"), (self.returns, "returns"), (self.lengths, "lengths")):
            own[:] = state[name]

    def place(self, copy: int, more: int = 0) -> str:
        """Name the step of a copy, `more` steps after those that were counted."""
        return f"step {self.lengths[copy] + more} of its episode {self.numbers[copy]}"


class Reports:
    """Checks what the copies gave; stops with the place of a fault, and warns once of each kind of doubt.

    Args:
        environment: What the copies are copies of.
        space: Of one observation.
        counts: Where each copy is.
        warn: Takes a sentence about what is doubtful in the copies' numbers.

    Attributes:
        environment: As given.
    """

    def __init__(self, environment: Environment, space: gym.Space[Any], counts: Counts, warn: Warn) -> None:
        self.environment = environment
        self._ranges, self._counts, self._warn = Ranges(space), counts, warn
        self._noted: set[str] = set()

    def check_rewards(self, rewards: np.ndarray) -> None:
        """Look through the rewards of all copies, shape `(copies,)`.

        Raises:
            EnvironmentFault: If one is not finite.
        """
        if not self._ranges.rewards_hold(rewards):
            self._tell(self._ranges.reward_outside(rewards))

    def check(self, observations: Any, copy: int | None = None) -> None:
        """Look through the observations of all copies, or of one.

        Args:
            observations: First axis the copies; a dictionary of such for `Dict` spaces.
            copy: Whose they are, if only one's.

        Raises:
            EnvironmentFault: If a number is not finite, or impossible.
        """
        if not self._ranges.observations_hold(observations):
            for found in self._ranges.observations_outside(observations):
                self._tell(found if copy is None else found._replace(copy=copy))

    def pass_on(self, notes: Iterable[Note], begun: bool) -> None:
        """Warn of what was noted of the copies' steps, or of their new episodes."""
        for note in notes:
            if note.begun == begun:
                self.note(note.what, note.seen, note.copy)

    def note(self, what: str, seen: str, copy: int) -> None:
        """Warn of something, unless the same was said before."""
        if what not in self._noted:
            self._noted.add(what)
            self._warn(f"{self.environment}: {what}{FIRST}{seen}, from copy {copy} at {self._counts.place(copy)}).")

    def failure(self, error: CopyError, step: int) -> EnvironmentFault:
        """Return where a copy failed, `step` steps after those that were counted, as an error to raise."""
        if error.copy is None:
            return EnvironmentFault(
                f"{self.environment}: its batch of copies {error.what}.", where=self.environment, trace=error.trace
            )
        place = self._counts.place(error.copy, step)
        sentence = f"{self.environment}: copy {error.copy} {error.what}, at {place}."
        where = f"{self.environment}: copy {error.copy}, {place}"
        return EnvironmentFault(sentence, where=where, trace=error.trace)

    def _tell(self, found: Finding) -> None:
        """Stop, or warn."""
        if found.fatal:
            place = self._counts.place(found.copy)
            sentence = f"{self.environment}: copy {found.copy} gave {found.what} at {place}."
            where = f"{self.environment}: copy {found.copy}, {place}"
            raise EnvironmentFault(sentence, where=where, name=found.name)
        self.note(f"gives {found.what}", found.seen, found.copy)
