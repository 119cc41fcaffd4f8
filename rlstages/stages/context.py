"""What a stage is given to run with."""

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
    """What a runner is made with: the run as far as a stage may see it.

    Attributes:
        learner: Whose policy is trained.
        seed: Of the run.
        emit: Takes events.
        run: The run directory.
        stages: All of the curriculum.
        way: The indices of the stages that were entered so far, its own last.
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
        """The stage under way."""
        return self.stages[self.way[-1]]

    @property
    def before(self) -> Sequence[StageSpec]:
        """The stages before it in the curriculum."""
        return self.stages[: self.way[-1]]

    @property
    def number(self) -> int:
        """How many stages were entered before it: seeds of episodes are made from it, and differ in every visit."""
        return len(self.way) - 1

    def demonstrated(self) -> tuple[Observations, np.ndarray]:
        """Return the observations and actions that the run keeps of demonstrations, as the policy takes them.

        Raises:
            InputError: If there are none.
        """
        spaces = self.learner.policy.observation_space, self.learner.action_space
        return demonstrated_transitions(self.run, *spaces)

    def file(self, folder: str, ending: str) -> Path:
        """Return a file of the stage's own in a folder of the run directory; each visit has one."""
        return self.run / folder / f"{stem_of(self.stages, self.way)}{ending}"
