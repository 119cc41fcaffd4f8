"""Starting a run: `train`, and `check`, which stops before step 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlstages.demonstrations.kept import inherited
from rlstages.environments.scripts import refuse_while_imported
from rlstages.errors import require_seed
from rlstages.events import Follower, require_followers
from rlstages.learners.learner import Learner
from rlstages.play.saved_policies import learner_of, spaces_to_data
from rlstages.reproducibility import limited_threads, one_at_a_time, threads_of
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import load_curriculum, load_with_parameters
from rlstages.specs.plain import whole
from rlstages.storage.record import new_record
from rlstages.storage.run_directory import RunDirectory, free_path, refuse_taken
from rlstages.storage.trust import remember
from rlstages.tracking import Extra, Track
from rlstages.training.conditions import conditions
from rlstages.training.initial import origin_of, start_from
from rlstages.training.preflight import Checked, preflight
from rlstages.training.session import RunResult
from rlstages.training.state import first_state
from rlstages.training.trainer import Trainer, Watch

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
    """Train a curriculum from its first stage.

    Only one run at a time trains in a process; a call in a second thread waits for its turn. The global random
    generators
    of Python, NumPy and torch are restored afterwards. Draws from them in other threads change the run.

    Args:
        curriculum: Curriculum, or the name or file of one.
        seed: Seed of all random draws of the run.
        out: Run directory to make. By default, an unused name under `runs/`.
        initial: Run whose final policy this one starts from (with the same network), and whose demonstrations it
            takes over if it needs any.
        parameters: Values for the parameters of the curriculum's function, where its name or file is given; of a
            `Curriculum`, the values that it was made with. They are noted in `run.json` and at Weights & Biases.
        track: Mode of Weights & Biases. `"auto"` is online if a key is configured, and offline otherwise.
        track_also: What W&B is sent only when it is asked for: `"system"`, what is measured of the machine; `"code"`,
            the curriculum's files.
        notes: Notes of the run, at Weights & Biases.
        tags: Tags of the run at Weights & Biases.
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
    noted = {"parameters": parameters or {}, "notes": notes, "tags": tuple(tags), "origin": origin_of(initial)}
    record = new_record(curriculum, seed, spaces, conditions(curriculum.agent), came_from, digest, **noted)
    path = Path(out) if out is not None else free_path(RUNS, curriculum, seed)
    with limited_threads(threads_of(curriculum.agent)):
        learner = learner_of(record)
        if initial is not None:
            start_from(learner, curriculum, Path(initial))
        with RunDirectory.create(path, record, first_state(learner, checked.doubts), content) as run:
            remember(path, run.record)
            live = Trainer(run, learner, trust_pickle, watch, resumed=False)
            live.session.tell(checked.doubts)
            return live.train(track, track_also, console, trackers)


@one_at_a_time("the check of a curriculum")
def check(
    curriculum: Curriculum | str | Path, initial: Path | str | None = None, trust_pickle: bool = False
) -> Checked:
    """Check a curriculum, and the run from which it starts, like `train`, without training.

    Args:
        curriculum: Curriculum, or the name or file of one.
        initial: Run whose final policy it is to start from, as `train` takes it.
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
