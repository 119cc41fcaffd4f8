"""Exploration of an arm's policies, and negative transfer from clones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rlstages.events import ExplorationMeasured
from rlstages.learners.exploration import is_certain
from rlstages.storage.run_directory import read_events


@dataclass(frozen=True)
class Explored:
    """The exploration of an arm's policies at the start of their last stage.

    Attributes:
        stage: Last stage that most of the runs came to.
        runs: Those that came to it.
        entropy: Median over runs, as a share of the largest entropy; `None` for continuous actions.
        entropy_low: Same of a low quantile over the states.
        std: Median standard deviation of a continuous policy, as a share of half an action's range; else `None`.
        given_back: Runs whose policy was made to try more, in any stage.
    """

    stage: str
    runs: int
    entropy: float | None
    entropy_low: float | None
    std: float | None
    given_back: int

    @property
    def certain(self) -> bool:
        """Whether the policies hardly explored."""
        measured = {"std": self.std, "entropy_low": self.entropy_low}
        return is_certain({name: value for name, value in measured.items() if value is not None})


def explored_by(runs: Sequence[Path], stages: Sequence[str]) -> Explored | None:
    """Read what an arm's policies tried from the logs of its runs; `None` if it was not measured.

    Args:
        runs: Run directories.
        stages: Names of the arm's fine-tuning stages, in order.
    """
    first, given_back = list[dict[str, ExplorationMeasured]](), 0
    for run in runs:
        measured = [(e.stage_name, e.payload) for e in read_events(run) if isinstance(e.payload, ExplorationMeasured)]
        given_back += any(found.reason for _, found in measured)
        # The first one of each stage is of the policy that came into it.
        first.append(dict(reversed(measured)))
    for stage in reversed(stages):
        there = [found[stage] for found in first if stage in found]
        if there and 2 * len(there) >= len(first):
            return Explored(
                stage,
                runs=len(there),
                entropy=_median([found.entropy for found in there]),
                entropy_low=_median([found.entropy_low for found in there]),
                std=_median([found.std for found in there]),
                given_back=given_back,
            )
    return None


def _median(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return median(numbers) if numbers else None
