"""The progress of a run, read from its directory: `rlstages.show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlstages.events import RunFinished, StageEnd
from rlstages.storage.record import RunRecord, read_record
from rlstages.storage.run_directory import read_events
from rlstages.tracking.state import RunState


@dataclass(frozen=True)
class RunOverview:
    """The progress of a run.

    Attributes:
        path: Run directory.
        record: What is run: curriculum, seed, parameters and versions.
        outcome: Outcome, as in `RunResult`, or `"unfinished"` if the run is still training or was killed.
        reason: One sentence, or nothing where it is unfinished.
        steps: Environment steps so far.
        ends: How each stage of the curriculum ended last, in their order; `None` where it has not.
        state: Everything else that its events tell, stage by stage: scores, verdicts, hand-overs, retention.
    """

    path: Path
    record: RunRecord
    outcome: str
    reason: str
    steps: int
    ends: tuple[StageEnd | None, ...]
    state: RunState


def show(run: Path | str) -> RunOverview:
    """Return the progress of a run. No code that the run names is imported, so runs of strangers are safe.

    Args:
        run: Run directory, also of a run that is under way.

    Raises:
        InputError: If it is no run directory, or damaged.
    """
    path = Path(run)
    record = read_record(path)
    ends: dict[int, StageEnd] = {}
    outcome, reason, steps = "unfinished", "", 0
    state = RunState(record.curriculum)
    for event in read_events(path):
        state.take(event)
        steps, last = event.global_step, event.payload
        if isinstance(last, StageEnd):
            ends[event.stage_index] = last
        outcome, reason = (last.outcome, last.reason) if isinstance(last, RunFinished) else ("unfinished", "")
    in_order = tuple(ends.get(index) for index in range(len(record.curriculum.stages)))
    return RunOverview(path, record, outcome, reason, steps, in_order, state)
