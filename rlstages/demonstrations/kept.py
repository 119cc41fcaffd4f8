"""The demonstrations that a run keeps, for later stages and for runs that start from its policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlstages.demonstrations.episodes import MAX_DEMONSTRATIONS, Demonstrations, Observations, load_demonstrations
from rlstages.demonstrations.fitting import place_demonstrations
from rlstages.errors import InputError, require
from rlstages.events import DemonstrationsReady, StageFinished
from rlstages.specs.stages.base import StageSpec
from rlstages.specs.stages.sequence import undemonstrated
from rlstages.storage.checkpoints import sha256
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import INHERITED, read_events
from rlstages.storage.untrusted import inside, read_bytes


@dataclass(frozen=True)
class Kept:
    """Demonstrations in a run directory.

    Attributes:
        file: Path of the file.
        digest: Its SHA-256 when it was written.
    """

    file: Path
    digest: str

    def content(self) -> bytes:
        """Return the file's bytes.

        Raises:
            InputError: If it is missing, or not the file that was written.
        """
        whole = self.file.is_file()
        content = read_bytes(self.file, MAX_DEMONSTRATIONS) if whole else b""
        sentence = f"{self.file} is not the file that the run wrote."
        require(whole and sha256(content) == self.digest, sentence, "file-damaged", self.file)
        return content

    def demonstrations(self) -> Demonstrations:
        """Return the episodes.

        Raises:
            InputError: If the file is missing, or not the one that was written.
        """
        self.content()
        return load_demonstrations(self.file)


def kept_demonstrations(run: Path) -> Kept | None:
    """Return the demonstrations of the last finished cloning stage, or else those that the run began with."""
    kept, ready = None, None
    for event in read_events(run):
        if isinstance(event.payload, DemonstrationsReady):
            ready = event.stage_index, Kept(inside(run, event.payload.file), event.payload.digest)
        elif isinstance(event.payload, StageFinished) and ready is not None and ready[0] == event.stage_index:
            kept = ready[1]
    began_with = read_record(run).demonstrations
    return Kept(inside(run, INHERITED), began_with) if kept is None and began_with is not None else kept


def inherited(stages: Sequence[StageSpec], run: Path) -> Kept | None:
    """Return the demonstrations that stages need from the run whose policy they start with, or `None`.

    Raises:
        InputError: If that run keeps none.
    """
    needy = undemonstrated(stages)
    kept = kept_demonstrations(run) if needy else None
    if needy and kept is None:
        sentence = (
            f"stage {needy[0].name!r}: {needy[0].demonstrations_needed}, but {run} keeps no "
            "demonstrations, as no stage in it has learned from any; start from a run that has, or leave it out."
        )
        raise InputError(sentence, "stage-order", f"stage {needy[0].name!r}")
    return kept


def demonstrated_transitions(
    run: Path, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> tuple[Observations, np.ndarray]:
    """Return the observations and actions for the demonstration loss of a run's current stage.

    Args:
        run: Run directory.
        observation_space: Observation space of the policy.
        action_space: Action space of the environment, in its own units.

    Raises:
        InputError: If they are not there any more.
    """
    kept = kept_demonstrations(run)
    require(kept is not None, f"{run} does not keep the demonstrations that its stage needs.", "file-missing", run)
    assert kept is not None
    placed = place_demonstrations(kept.file.name, kept.demonstrations(), observation_space, action_space)
    return placed.transitions()
