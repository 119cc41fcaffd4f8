"""The state of a run in a checkpoint: the learner, the current stage, and the progress of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlstages.errors import Fault
from rlstages.learners.learner import Learner
from rlstages.stages.path import way_from
from rlstages.stages.runner import state_of_runner

if TYPE_CHECKING:
    from rlstages.training.trainer import Trainer


def first_state(learner: Learner, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the state of a run before its first step, including sentences that wait for the user."""
    return {
        "notes": list(notes),
        "stage": 0,
        "way": [],
        "seconds": {"stage": 0.0, "retention": 0.0},
        "saves": 1,
        "learner": learner.state_dict(),
        "runner": None,
        "retention": None,
    }


def state_of_run(run: Trainer) -> dict[str, Any]:
    """Return the state of a run between two steps."""
    return {
        **first_state(run.learner),
        "stage": run.stage,
        "way": list(run.way),
        "seconds": {"stage": run.seconds, "retention": run.retention.seconds},
        "runner": None if run.runner is None else state_of_runner(run.spec, run.runner),
        "retention": run.retention.state_dict(),
    }


@contextmanager
def unsavable_named(run: Trainer) -> Iterator[None]:
    """Turn an error in saving a runner's state into one that names the runner.

    Raises:
        Fault: If the state of the runner cannot be saved.
    """
    try:
        yield
    except ValueError as error:
        if run.runner is None or not str(error).startswith("runner"):
            raise
        what = f"Stage {run.spec.name!r}: the state of its runner {run.spec.runner} cannot be saved"
        raise Fault(
            f"{what} ({error}); let state_dict return arrays and JSON values only.",
            "runner-invalid",
            f"stage {run.spec.name!r}",
            "state_dict",
        ) from error


def load_state(run: Trainer, state: Mapping[str, Any]) -> None:
    """Restore a run from a checkpoint."""
    run.session.load(state)
    run.stage = state["stage"]
    run.way = way_from(state["way"], run.curriculum.stages)
    run.seconds, run.retention.seconds = state["seconds"]["stage"], state["seconds"]["retention"]
    if state["retention"] is not None:
        run.retention.load_state_dict(state["retention"])
    if state["runner"] is not None:
        run.learner.load_state_dict(state["learner"])
        run.runner = run.make_runner()
        run.runner.load_state_dict(state["runner"])
    # Restore the learner last, because making the runner may draw from the generators that the learner restores.
    run.learner.load_state_dict(state["learner"])
