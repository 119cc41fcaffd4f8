"""Resuming a run: `resume`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rlstages.environments.scripts import refuse_while_imported
from rlstages.errors import Fault, InputError, reason_of, require, require_int
from rlstages.events import Follower, RunFinished, StageFinished, require_followers
from rlstages.play.saved_policies import learner_of
from rlstages.reproducibility import limited_threads, one_at_a_time, threads_of
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import load_curriculum
from rlstages.specs.plain import whole
from rlstages.storage.run_directory import RunDirectory, read_events, update_curriculum
from rlstages.storage.trust import is_own, remember, trust_sources
from rlstages.tracking import Extra, Track
from rlstages.training.conditions import require_unchanged
from rlstages.training.session import RunResult
from rlstages.training.state import load_state
from rlstages.training.trainer import Trainer, Watch


@one_at_a_time("resume()", inside=False)
def resume(
    path: Path | str,
    *,
    max_steps: int | None = None,
    force: bool = False,
    track: Track = "none",
    track_also: Sequence[Extra] = (),
    console: bool = False,
    trackers: Sequence[Follower] = (),
    watch: Watch | None = None,
    curriculum: Curriculum | str | Path | None = None,
    trust_pickle: bool = False,
    trust_imports: bool = False,
) -> RunResult:
    """Resume a run that was interrupted, that crashed, or that missed a threshold.

    It ends as it would have without the interruption, to the last bit, if its environments can be brought back by
    their seeds and actions, and if the machine computes as it did (`conditions`). A run that has ended stays as it is.

    Args:
        path: Its run directory.
        max_steps: Larger step limit for the stage in which the run stopped.
        force: Go on although the curriculum's files, or rlstages, have changed since it was started.
        track: Mode of Weights & Biases. `"auto"` is online if a key is configured, and offline otherwise.
        track_also: What W&B is sent only when it is asked for, as in `train`.
        console: Whether to show the run on standard output.
        trackers: Trackers, as for `train`.
        watch: Looks at the learner before every step, and may pause the run; `resume` goes on from there.
        curriculum: Curriculum of a run that somebody else made, or its name or file: what it names is imported.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.
        trust_imports: Whether everything that a run which somebody else made names may be imported.

    Raises:
        InputError: If there is nothing to go on with, or the run names code that may not be imported.
    """
    refuse_while_imported("resume")
    require_followers(trackers)
    if max_steps is not None:
        max_steps = whole(max_steps)
        require_int("resume", "max_steps", max_steps)
    with RunDirectory(Path(path)) as run:
        ended = None if max_steps is not None else how_it_ended(run.path)
        # A run that was killed between its last event and its last checkpoint ends once more.
        if ended is not None and not run.is_ahead:
            return ended
        if curriculum is not None and not isinstance(curriculum, Curriculum):
            curriculum = load_curriculum(str(curriculum))
        told = require_unchanged(run.path, run.record, force)
        trust_sources(run.path, run.record, curriculum, trust_imports)
        name, state, damages = run.restore()
        if max_steps is not None:
            own = is_own(run.path, run.record)
            with _fitting(name):
                _raise_limit(run, state["stage"], max_steps, own)
        agent = run.record.curriculum.agent
        with limited_threads(threads_of(agent)):
            with _fitting(name):
                learner = learner_of(run.record, state["learner"]["policy"])
                live = Trainer(run, learner, trust_pickle, watch, resumed=True)
                load_state(live, state)
            live.session.tell([*damages, *told])
            return live.train(track, track_also, console, trackers)


def how_it_ended(path: Path) -> RunResult | None:
    """Return the result of a run, or `None` if it can be resumed as it is."""
    events = list(read_events(path))
    last = events[-1].payload if events else None
    if not isinstance(last, RunFinished) or last.outcome in ("interrupted", "paused", "failed"):
        return None
    finished = {e.stage_name: e.payload for e in events if isinstance(e.payload, StageFinished)}
    return RunResult(path, last.outcome, last.reason, finished)


@contextmanager
def _fitting(checkpoint: str) -> Iterator[None]:
    """Refuse a complete checkpoint that belongs to another run."""
    try:
        yield
    except (InputError, Fault):
        raise
    except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(
            f"Checkpoint {checkpoint} does not fit this run: {reason}.", "file-damaged", checkpoint
        ) from error


def _raise_limit(run: RunDirectory, stage: int, max_steps: int, own: bool) -> None:
    stages = list(run.record.curriculum.stages)
    under_way = stages[stage] if stage < len(stages) else None
    if under_way is None or under_way.step_limit is None:
        sentence = f"{run.path} did not stop in a fine-tuning stage, so there is no step limit to raise."
        raise InputError(sentence, "run-unready", run.path, "max_steps")
    limit = under_way.step_limit
    sentence = f"--max-steps is {max_steps:,}, but stage {under_way.name!r} has {limit:,} already; give more."
    require(max_steps > limit, sentence, "setting-range", f"stage {under_way.name!r}", "max_steps", max_steps)
    stages[stage] = under_way.with_step_limit(max_steps)
    changed = replace(run.record.curriculum, stages=tuple(stages))
    if own:
        # Note the ownership first, so that a kill in between does not make it a stranger's run.
        remember(run.path, replace(run.record, curriculum=changed))
    update_curriculum(run, changed)
