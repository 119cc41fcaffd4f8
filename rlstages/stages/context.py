"""The context of a stage: the argument of every runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlstages.demonstrations.episodes import Observations
from rlstages.demonstrations.kept import demonstrated_transitions
from rlstages.events import Emit
from rlstages.learners.learner import Learner
from rlstages.specs.stages.base import StageSpec
from rlstages.stages.path import Way, stem_of


@dataclass(frozen=True)
class StageContext:
    """The part of a run that a stage may use. Every runner is constructed with it.

    Attributes:
        learner: Learner that owns the policy.
        seed: Seed of the run.
        emit: Function that takes events.
        run: Run directory.
        stages: All stages of the curriculum.
        way: Indices of the stages that were entered so far, the current one last.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.
    """

    learner: Learner
    seed: int
    emit: Emit
    run: Path
    stages: Sequence[StageSpec]
    way: Way = (0,)
    trust_pickle: bool = False

    @property
    def spec(self) -> StageSpec:
        """The spec of the current stage."""
        return self.stages[self.way[-1]]

    @property
    def before(self) -> Sequence[StageSpec]:
        """The stages before the current one in the curriculum."""
        return self.stages[: self.way[-1]]

    @property
    def number(self) -> int:
        """Number of stages entered before. Seeds of episodes depend on it, so they differ between visits of a stage."""
        return len(self.way) - 1

    def demonstrated(self) -> tuple[Observations, np.ndarray]:
        """Return the demonstrations that the run has kept: observations and actions in the policy's form.

        Raises:
            InputError: If the run has kept none.
        """
        spaces = self.learner.policy.observation_space, self.learner.action_space
        return demonstrated_transitions(self.run, *spaces)

    def file(self, folder: str, ending: str) -> Path:
        """Return the path of a file of this visit of the stage, in a folder of the run directory."""
        return self.run / folder / f"{stem_of(self.stages, self.way)}{ending}"
