"""Seconds until the same return: stable-baselines3 as it comes, the same equally tuned, and the engines.

    python benchmarks/equal_learning.py [--quick] [--json]

All train in the same environment; every 1,024 steps, outside the time, each plays 50 episodes of the likeliest actions,
the same ones at every look. The threshold is reached at the first look whose mean return is at least that. The arms
take turns from look to look, each with random generators of its own, so that whatever else the machine does falls on
all alike and no arm changes another.

CartPole's tuned settings are what `--tune` finds best for stable-baselines3 itself, by its own time until the
threshold, on seeds that are not measured afterwards; the engines get the same settings, not ones of their own. Those of
`--tasks rooms` are the built-in curriculum's with a higher learning rate, not searched for. Episodes have the same
seeds under all arms, and the torch engine's weights are stable-baselines3's to the last bit, so that its curve must be
the tuned one's. The NumPy engine draws otherwise: the time until the threshold differs by luck too, which the time for
the same steps does not, and the last columns say whether it learns as much.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy import stats
from scoring import mean_return
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from throughput import ENVIRONMENTS, Contender, batched, ours, stock

from rlstages import Environment
from rlstages.environments.make import SeededEpisodes, make_environment, make_vec_env
from rlstages.environments.seeding import EpisodeSeeds, Purpose
from rlstages.experiments.compare.statistics import estimate, steps_to
from rlstages.reproducibility import limited_threads, random_state, set_random_state

EVERY, EPISODES = 1_024, 50
# The end of a curve is the mean of this share of it: a single look moves much.
LAST = 0.2
TUNING_SEEDS = (1_000, 1_001, 1_002)
GRID: dict[str, list[Any]] = {
    "n_steps": [32, 128],
    "batch_size": [64, 256],
    "n_epochs": [4, 10],
    "learning_rate": [1e-3, 3e-3],
}
DEFAULT_SETTINGS = {"n_envs": 1, "n_steps": 2_048, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4}
DEFAULT, TUNED, TORCH = "stable-baselines3, default", "stable-baselines3, tuned", "torch"


@dataclass(frozen=True)
class Task:
    """What is to be learned, how well, within how many steps, and with which tuned settings.

    Attributes:
        batched: From a number and a seed to that many copies that are stepped by one call.
    """

    spec: Environment
    threshold: float
    steps: int
    tuned: dict[str, Any]
    batched: Callable[[int, int], VecEnv]


_ROOMS = Environment("rlstages_envs:rlstages/Rooms-v0", rooms=2, size=5)
TASKS = {
    "CartPole": Task(
        ENVIRONMENTS["CartPole"],
        threshold=475.0,
        steps=50_000,
        tuned={"n_envs": 8, "n_steps": 32, "batch_size": 256, "n_epochs": 4, "learning_rate": 1e-3},
        batched=partial(batched, "CartPole"),
    ),
    "rooms": Task(
        _ROOMS,
        threshold=0.7,
        steps=150_000,
        tuned={
            "n_envs": 16,
            "n_steps": 128,
            "batch_size": 256,
            "n_epochs": 10,
            "learning_rate": 1e-3,
            "ent_coef": 0.01,
        },
        batched=lambda number, seed: make_vec_env(_ROOMS, number, seed, 0),
    ),
}


@dataclass(frozen=True)
class Look:
    """Steps and seconds of training so far, and the mean return then."""

    steps: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    value: float = -math.inf


@dataclass
class Arm:
    """One contender on one seed.

    Attributes:
        turn_steps: Environment steps of a turn, over all copies.
        random: Where its random generators are.
        looks: Its curve.
    """

    contender: Contender
    turn_steps: int
    random: dict[str, Any]
    looks: list[Look] = field(default_factory=lambda: [Look()])

    def advance(self, steps: int, test: VecEnv) -> Look:
        """Train on until these steps, and look, unless they are done."""
        last = self.looks[-1]
        if last.steps >= steps:
            return last
        set_random_state(self.random)
        done, wall, cpu = last.steps, time.perf_counter(), time.process_time()
        while done < steps:
            self.contender.turn()
            done += self.turn_steps
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.random = random_state()
        self.looks.append(Look(done, last.wall + wall, last.cpu + cpu, mean_return(self.contender.act, test)))
        return self.looks[-1]

    def reached(self, threshold: float) -> Look | None:
        """Return the first look that reached a threshold."""
        return next((look for look in self.looks if look.value >= threshold), None)

    @property
    def end(self) -> float:
        """The mean return of the last looks."""
        began = (1 - LAST) * self.looks[-1].steps
        return float(np.mean([look.value for look in self.looks if look.steps > began]))


Run = dict[str, Arm]


def main() -> None:
    """Measure and print, or tune."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="CartPole only, 3 seeds, 20,000 steps")
    parser.add_argument("--json", action="store_true", help="print all curves as JSON")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["CartPole"])
    parser.add_argument("--seeds", type=int, default=0, help="how many, at least 2 (default 10, quick 3)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: where others use the machine")
    parser.add_argument("--tune", action="store_true", help="search the grid for stable-baselines3's best settings")
    arguments = parser.parse_args()
    if arguments.seeds == 1:
        parser.error("--seeds 1 leaves nothing to make an interval of; give at least 2.")
    seeds = range(arguments.seeds or (3 if arguments.quick else 10))
    measured = {}
    with limited_threads(1):
        for name in ["CartPole"] if arguments.quick else arguments.tasks:
            task = TASKS[name]
            if arguments.tune:
                tune(name, task, arguments.clock)
            else:
                measured[name] = [train(task, seed, 20_000 if arguments.quick else task.steps) for seed in seeds]
    if arguments.json:
        print(json.dumps({name: [curves(run) for run in runs] for name, runs in measured.items()}))
        return
    for name, runs in measured.items():
        show(name, TASKS[name].threshold, runs, arguments.clock)


def curves(run: Run) -> dict[str, list[dict[str, float]]]:
    """Return what the arms' looks showed."""
    return {name: [vars(look) for look in arm.looks[1:]] for name, arm in run.items()}


def train(task: Task, seed: int, steps: int) -> Run:
    """Train all arms on one seed, in turns."""
    spec, tuned = task.spec, task.tuned
    in_process = Environment(spec.id, vectorize="in-process", **spec.kwargs)
    arms = {
        DEFAULT: begin(DEFAULT_SETTINGS, lambda: theirs(spec, DEFAULT_SETTINGS, seed)),
        TUNED: begin(tuned, lambda: theirs(spec, tuned, seed)),
        TORCH: begin(tuned, lambda: ours(in_process, tuned, "torch", seed=seed)),
        "numpy": begin(tuned, lambda: ours(in_process, tuned, "numpy", seed=seed)),
        "numpy, batched": begin(tuned, lambda: ours(spec, tuned, "numpy", task.batched(tuned["n_envs"], seed), seed)),
    }
    test = task.batched(EPISODES, 0)
    for look in range(EVERY, steps + 1, EVERY):
        for arm in arms.values():
            arm.advance(look, test)
    return arms


def begin(settings: dict[str, Any], make: Callable[[], Contender]) -> Arm:
    """Return an arm at its beginning; making it seeds the random generators."""
    contender = make()
    return Arm(contender, settings["n_envs"] * settings["n_steps"], random_state())


def theirs(spec: Environment, settings: dict[str, Any], seed: int) -> Contender:
    """Return stable-baselines3 in its own copies, whose episodes have the seeds that ours have."""
    seeds = [EpisodeSeeds(seed, 0, Purpose.TRAINING, copy) for copy in range(settings["n_envs"])]
    copies = DummyVecEnv([lambda own=own: SeededEpisodes(make_environment(spec), own) for own in seeds])
    return stock(spec, settings, copies, seed)


def tune(name: str, task: Task, clock: str) -> None:
    """Print the grid, the best first, by the mean of stable-baselines3's seconds until the threshold or the end."""
    test, rows = task.batched(EPISODES, 0), []
    for values in itertools.product(*GRID.values()):
        settings = {"n_envs": task.tuned["n_envs"], **dict(zip(GRID, values, strict=True))}
        ends = [_train_until(task, settings, seed, test) for seed in TUNING_SEEDS]
        reached = sum(end.value >= task.threshold for end in ends)
        seconds = float(np.mean([getattr(end, clock) for end in ends]))
        rows.append((seconds, f"{seconds:7.1f} s   reached {reached} of {len(ends)}   {settings}"))
        print(f"{len(rows)}: {rows[-1][1]}", flush=True)
    print(f"\n{name}, {clock} time until {task.threshold:g}")
    print("\n".join(line for _, line in sorted(rows)))


def _train_until(task: Task, settings: dict[str, Any], seed: int, test: VecEnv) -> Look:
    arm = begin(settings, lambda: theirs(task.spec, settings, seed))
    looks = (arm.advance(steps, test) for steps in range(EVERY, task.steps + 1, EVERY))
    return next((look for look in looks if look.value >= task.threshold), arm.looks[-1])


def show(name: str, threshold: float, runs: list[Run], clock: str) -> None:
    """Print a row for each arm; the ratios are of the tuned arm's seconds to its own, seed by seed."""
    steps = runs[0][TUNED].looks[-1].steps
    print(f"\n{name}: return {threshold:g}; {len(runs)} seeds, {steps:,} steps each, {clock} time")
    print(
        f"{'':28}{'reached':>9}{'steps':>9}{'seconds':>9}{'ratio, same return':>24}{'same steps':>21}{'end':>8}   apart"
    )
    against = [_spent(run[TUNED], threshold) for run in runs]
    for name in runs[0]:
        arms = [run[name] for run in runs]
        spent = [_spent(arm, threshold) for arm in arms]
        steps = steps_to([look.steps for look in spent], [arm.reached(threshold) is not None for arm in arms])
        median = f"{steps.median:,.0f}" if steps.median is not None else "-"
        seconds = np.median([getattr(look, clock) for look in spent])
        same_return = ratio(against, spent, clock)
        same_steps = ratio([run[TUNED].looks[-1] for run in runs], [arm.looks[-1] for arm in arms], clock)
        apart = estimate([arm.end - run[TUNED].end for arm, run in zip(arms, runs, strict=True)])
        reached = f"{steps.reached} of {steps.runs}"
        print(
            f"{name:28}{reached:>9}{median:>9}{seconds:9.1f}{same_return:>24}{same_steps:>21}"
            f"{np.mean([arm.end for arm in arms]):8.3g}   {apart.value:+.2g} [{apart.low:+.2g}, {apart.high:+.2g}]"
        )
    same = all(_values(run[TORCH]) == _values(run[TUNED]) for run in runs)
    print(f"The torch engine's returns {'equal' if same else 'DIFFER from'} tuned stable-baselines3's at every look.")


def ratio(one: list[Look], other: list[Look], clock: str) -> str:
    """Return the median ratio of pairs of times, with its 95 % bootstrap interval."""
    ratios = np.array([getattr(a, clock) / getattr(b, clock) for a, b in zip(one, other, strict=True)])
    found = stats.bootstrap((ratios,), np.median, method="percentile", random_state=np.random.default_rng(0))
    low, high = found.confidence_interval
    return f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]"


def _spent(arm: Arm, threshold: float) -> Look:
    """Return the look that reached the threshold, or the last one."""
    return arm.reached(threshold) or arm.looks[-1]


def _values(arm: Arm) -> list[float]:
    return [look.value for look in arm.looks]


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
