"""Starting a run, and going on with one: `train` and `resume`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlstages.demonstrations.kept import inherited
from rlstages.environments.action_units import require_bounds
from rlstages.environments.scripts import refuse_while_imported
from rlstages.environments.spaces import describe_space
from rlstages.errors import Fault, InputError, reason_of, require, require_int, require_seed
from rlstages.events import Follower, RunFinished, StageFinished, require_followers
from rlstages.learners.learner import Learner
from rlstages.play.saved_policies import final_weights, last_finished, learner_of, spaces_of, spaces_to_data
from rlstages.reproducibility import limited_threads, one_at_a_time, threads_of
from rlstages.specs.agent import Agent
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import load_curriculum, load_with_parameters
from rlstages.specs.plain import whole
from rlstages.storage.record import new_record, read_record
from rlstages.storage.run_directory import RunDirectory, free_path, read_events, refuse_taken, update_curriculum
from rlstages.storage.trust import is_own, remember, trust_sources
from rlstages.tracking import Extra, Track
from rlstages.training.preflight import Checked, preflight
from rlstages.training.resuming import conditions, require_unchanged
from rlstages.training.trainer import RunResult, Trainer, Watch, state_of

RUNS = Path("runs")


@one_at_a_time("train()", inside=False)
def train(
    curriculum: Curriculum | str | Path,
    *,
    seed: int = 0,
    out: Path | str | None = None,
    initial: Path | str | None = None,
    parameters: Mapping[str, Any] | None = None,
    track: Track = "none",
    track_also: Sequence[Extra] = (),
    notes: str | None = None,
    tags: Sequence[str] = (),
    console: bool = False,
    trackers: Sequence[Follower] = (),
    watch: Watch | None = None,
    trust_pickle: bool = False,
) -> RunResult:
    """Run a curriculum from its beginning.

    One run at a time goes on in a process: called in a second thread, this waits for its turn. The random generators of
    Python, NumPy and torch are afterwards where they were. Until then, who draws from them in another thread changes
    the run.

    Args:
        curriculum: The curriculum, or the name or file of one.
        seed: Decides every random draw of the run.
        out: The run directory to make; default a free name under `runs/`.
        initial: A run whose final policy this one starts from (with the same network), and whose demonstrations it
            takes over if it needs any.
        parameters: Values for the parameters of the curriculum's function, where its name or file is given; of a
            `Curriculum`, the values that it was made with. They are noted in `run.json` and at Weights & Biases.
        track: Where Weights & Biases runs: `"auto"` is online where a key is configured and offline elsewhere.
        track_also: What W&B is sent only when it is asked for: `"system"`, what is measured of the machine; `"code"`,
            the curriculum's files.
        notes: Of the run, at Weights & Biases.
        tags: Likewise.
        console: Whether to show the run on standard output.
        trackers: What else follows the run's events: functions that take an `Event`, or objects that also have `close`,
            which is called at the end. One that returns a `Pause` pauses the run; one that raises stops it.
        watch: Looks at the learner before every step, and may pause the run; `resume` goes on from there.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.

    Raises:
        InputError: Before anything is written, if something in the curriculum cannot work.
    """
    refuse_while_imported("train")
    require_followers(trackers)
    if not isinstance(curriculum, Curriculum):
        curriculum, parameters = load_with_parameters(str(curriculum), parameters)
    seed = whole(seed)
    require_seed("The seed", seed)
    if out is not None:
        refuse_taken(Path(out))
    kept = None if initial is None else inherited(curriculum.stages, Path(initial))
    checked = preflight(curriculum, trust_pickle=trust_pickle, kept=kept)
    spaces = spaces_to_data(checked.observation, checked.action)
    came_from = None if initial is None else Path(initial).name
    digest, content = (None, None) if kept is None else (kept.digest, kept.content())
    noted = {"parameters": parameters or {}, "notes": notes, "tags": tuple(tags), "origin": _origin(initial)}
    record = new_record(curriculum, seed, spaces, conditions(curriculum.agent), came_from, digest, **noted)
    path = Path(out) if out is not None else free_path(RUNS, curriculum, seed)
    with limited_threads(threads_of(curriculum.agent)):
        learner = learner_of(record)
        if initial is not None:
            start_from(learner, curriculum, Path(initial))
        with RunDirectory.create(path, record, state_of(learner, checked.doubts), content) as run:
            remember(path, run.record)
            live = Trainer(run, learner, trust_pickle, watch, resumed=False)
            live.session.tell(checked.doubts)
            return live.train(track, track_also, console, trackers)


def _origin(initial: Path | str | None) -> dict[str, str] | None:
    """Return what tells the policy that a run starts from, wherever its directory is."""
    if initial is None:
        return None
    name = read_record(Path(initial)).curriculum.name
    return {"name": name, "digest": last_finished(Path(initial))[1].digest}


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
    """Go on with a run that was interrupted, that crashed, or that missed a threshold.

    It ends as it would have without the interruption, to the last bit, if its environments can be brought back by
    their seeds and actions, and if the machine computes as it did (`conditions`). A run that has ended stays as it is.

    Args:
        path: Its run directory.
        max_steps: A larger step limit for the stage that it stopped in.
        force: Go on although the curriculum's files, or rlstages, have changed since it was started.
        track: Where Weights & Biases runs: `"auto"` is online where a key is configured and offline elsewhere.
        track_also: What W&B is sent only when it is asked for, as in `train`.
        console: Whether to show the run on standard output.
        trackers: As `train` takes them.
        watch: Looks at the learner before every step, and may pause the run; `resume` goes on from there.
        curriculum: The curriculum of a run that somebody else made, or its name or file: what it names is imported.
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
        # One that was killed between its last event and its last checkpoint comes to its end once more.
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
                live.load(state)
            live.session.tell([*damages, *told])
            return live.train(track, track_also, console, trackers)


def how_it_ended(path: Path) -> RunResult | None:
    """Return how a run ended, or `None` if it can go on as it is."""
    events = list(read_events(path))
    last = events[-1].payload if events else None
    if not isinstance(last, RunFinished) or last.outcome in ("interrupted", "paused", "failed"):
        return None
    finished = {e.stage_name: e.payload for e in events if isinstance(e.payload, StageFinished)}
    return RunResult(path, last.outcome, last.reason, finished)


@one_at_a_time("the check of a curriculum")
def check(
    curriculum: Curriculum | str | Path, initial: Path | str | None = None, trust_pickle: bool = False
) -> Checked:
    """Check a curriculum, and the run that it is to start from, as `train` does; nothing is trained.

    Args:
        curriculum: The curriculum, or the name or file of one.
        initial: A run whose final policy it is to start from, as `train` takes it.
        trust_pickle: Whether an expert's model zip, which can run any code, may be loaded.

    Raises:
        InputError: If something cannot work.
    """
    if not isinstance(curriculum, Curriculum):
        curriculum = load_curriculum(str(curriculum))
    initial = None if initial is None else Path(initial)
    kept = None if initial is None else inherited(curriculum.stages, initial)
    checked = preflight(curriculum, trust_pickle=trust_pickle, kept=kept)
    if initial is not None:
        start_from(Learner(curriculum.agent, checked.observation, checked.action, 0), curriculum, initial)
    return checked


def start_from(learner: Learner, curriculum: Curriculum, run: Path) -> None:
    """Give the learner of a curriculum another run's final policy, which it trusts.

    Raises:
        InputError: If the policy has another network, or the first stage cannot go on from it.
    """
    record = read_record(run)
    stages = dict(enumerate(record.curriculum.stages))
    seen, acts = spaces_of(record)
    require_bounds(f"The policy of {run} acts", acts, "this curriculum's", learner.action_space)
    try:
        learner.load_policy(final_weights(run))
    except InputError as error:
        theirs = _network(record.curriculum.agent, seen, acts)
        own = _network(curriculum.agent, learner.policy.observation_space, learner.policy.action_space)
        if theirs == own:
            raise
        raise InputError(f"The policy of {run} has {theirs}; this curriculum's has {own}.") from error
    last = stages.get(last_finished(run)[0])
    curriculum.stages[0].check_place([] if last is None else [last], curriculum.agent)
    learner.objective = "reinforcement" if last is None or last.reinforces else "cloning"
    learner.trust()


def _network(agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> str:
    """Return in words what decides which weights a policy has."""
    standardised = "standardised " if agent.normalize_observations else ""
    return (
        f"network {list(agent.network)} ({agent.policy}), {standardised}observations "
        f"{describe_space(observation_space)} and actions {describe_space(action_space)}"
    )


@contextmanager
def _fitting(checkpoint: str) -> Iterator[None]:
    """Refuse a checkpoint that is whole, but not one of this run's."""
    try:
        yield
    except (InputError, Fault):
        raise
    except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"Checkpoint {checkpoint} does not fit this run: {reason}.") from error


def _raise_limit(run: RunDirectory, stage: int, max_steps: int, own: bool) -> None:
    stages = list(run.record.curriculum.stages)
    under_way = stages[stage] if stage < len(stages) else None
    if under_way is None or under_way.step_limit is None:
        raise InputError(f"{run.path} did not stop in a fine-tuning stage, so there is no step limit to raise.")
    limit = under_way.step_limit
    require(
        max_steps > limit,
        f"--max-steps is {max_steps:,}, but stage {under_way.name!r} has {limit:,} already; give more.",
    )
    stages[stage] = under_way.with_step_limit(max_steps)
    changed = replace(run.record.curriculum, stages=tuple(stages))
    if own:
        # Noted first: a kill in between must not make a stranger's run of it.
        remember(run.path, replace(run.record, curriculum=changed))
    update_curriculum(run, changed)
