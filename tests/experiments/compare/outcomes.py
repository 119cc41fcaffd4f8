"""Comparisons whose runs have ended as a test wants them to: their curves, as a run would have written them."""

from dataclasses import replace

from comparing import placed

from rlstages.events import Event, ExplorationMeasured
from rlstages.experiments.compare.curve import Curve, Mark, Row, write_curve
from rlstages.experiments.compare.directory import run_path
from rlstages.experiments.compare.results import read_results
from rlstages.specs.criteria.episodes import Score
from rlstages.storage.run_directory import EVENTS

STEPS = 2_000


def score(success):
    return Score(16, 128, 8 * success, 8 * success - 1, 8 * success + 1, success, max(0.0, success - 0.1), success)


def without_success(found):
    return replace(found, success=None, success_low=None, success_high=None)


def curve(success, reached_at, level=False, silent=False):
    """A run that scores 0 until it reaches the threshold at some step, and ends with a success.

    `silent` leaves it out of the held-out environment's score.
    """
    unseen = without_success(score(success / 2)) if silent else score(success / 2)
    end = Row(160 if level else STEPS, "final", (score(success), unseen), None if level else STEPS)
    looks = [Row(cost, "grid", (score(success * (cost >= reached_at)), score(0.0))) for cost in range(0, STEPS + 1, 64)]
    marks = (Mark(160, "clone", "completed"), Mark(700, "short", "reached"))
    return Curve((*(looks if not level else ()), end), marks, 1_500)


def measured(stage, **found):
    """An event: what a policy tried."""
    found = {"stage_steps": 64, "entropy": None, "entropy_low": None, "std": None, **found}
    return Event(ExplorationMeasured(**found), 64, 1, stage)


def outcome(directory, finals, missing=(), reached_at=None, silent=None, explored=None):
    """Return the results of a comparison with these final scores: arm to one number a seed.

    `silent` is a held-out environment that defines no success; `explored` has the events of an arm's runs.
    """
    seeds = range(max(map(len, finals.values())))
    plan = placed(directory, names=list(finals), seeds=seeds, steps=STEPS, **({"held_out": silent} if silent else {}))
    for name, values in finals.items():
        for seed, value in enumerate(values):
            path = run_path(directory, name, seed)
            path.mkdir()
            lines = [f"{event.to_json()}\n" for event in (explored or {}).get(name, ())]
            (path / EVENTS).write_text("".join(lines))
            if (name, seed) not in missing:
                at = (reached_at or {}).get(name, 1_000)
                write_curve(path, curve(value, at, level=name == "clone-only", silent=silent is not None))
    return read_results(directory, plan, STEPS, {key: "ended by SIGKILL" for key in missing})
