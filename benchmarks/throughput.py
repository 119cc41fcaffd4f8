"""Environment steps per second of stable-baselines3's own `learn()` and of the engines, interleaved in one run.

    python benchmarks/throughput.py [--quick | --growth] [--threads 2] [--json]

Every contender trains the same network on the same environment with the same batches and epochs, one rollout and its
update at a time, in turns, so that whatever else the machine does falls on all of them alike. Printed are medians over
the turns and the median of each turn's ratio to stable-baselines3. `roofline` is the rate at which this machine
multiplies matrices of a minibatch's size, in the same run, as environment steps per second if an update were nothing
but its matrix products. `--growth` goes through numbers of copies and widths of the network instead, on CartPole.
Nothing here says how much is learned: benchmarks/equal_learning.py does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from batched_cartpole import BatchedCartPole
from batched_pendulum import BatchedPendulum
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlstages import Agent, BatchedEnv, Environment, FineTuning, RewardThreshold
from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.monitor import EpisodeMonitor
from rlstages.environments.seeding import EpisodeSeeds, Purpose
from rlstages.errors import InputError
from rlstages.learners.learner import Learner
from rlstages.reproducibility import limited_threads
from rlstages.stages.context import StageContext
from rlstages.stages.fine_tuning.runner import FineTuningRunner

Settings = dict[str, Any]
D: Settings = {"n_envs": 8, "n_steps": 256, "batch_size": 64, "n_epochs": 10, "network": (64, 64)}
Z: Settings = {"n_envs": 8, "n_steps": 128, "batch_size": 256, "n_epochs": 4, "network": (64, 64)}
CONFIGURATIONS = {"D": D, "Z": Z}
COPIES, WIDTHS = (1, 4, 16, 64, 256, 1024), (32, 64, 128, 256, 512)
GROWTH = {
    **{f"Z, {n} copies": {**Z, "n_envs": n, "n_steps": max(16, 1024 // n)} for n in COPIES},
    **{f"Z, 2 x {width}": {**Z, "network": (width, width)} for width in WIDTHS},
}
ENVIRONMENTS = {
    "CartPole": Environment("CartPole-v1"),
    "Pendulum": Environment("Pendulum-v1"),
    "Hopper": Environment("Hopper-v5"),
    "rooms": Environment("rlstages_envs:rlstages/Rooms-v0", rooms=2),
}
BATCHED: dict[str, Callable[[int], BatchedEnv]] = {"CartPole": BatchedCartPole, "Pendulum": BatchedPendulum}
"""Environments that are stepped one by one otherwise."""
BASE = "stable-baselines3"
NEVER = RewardThreshold(1e9)


@dataclass(frozen=True)
class Contender:
    """What takes turns.

    Attributes:
        turn: Plays one rollout and learns from it.
        act: From observations of several copies to the likeliest actions of the policy as it is now.
    """

    turn: Callable[[], None]
    act: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """One contender in one configuration; `learned` is its mean return after all turns, where that was played."""

    environment: str
    configuration: str
    contender: str
    steps_per_second: float
    ratio: float
    ratio_low: float
    ratio_high: float
    learned: float | None = None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few turns, CartPole only")
    parser.add_argument("--growth", action="store_true", help="copies and widths, CartPole only")
    parser.add_argument("--threads", type=int, default=1, help="of torch and NumPy")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--turns", type=int, default=0, help="turns of each contender (default 15, quick 5)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: where others use the machine")
    arguments = parser.parse_args()
    turns = arguments.turns or (5 if arguments.quick else 15)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    rows: list[Row] = []
    with limited_threads(arguments.threads):
        for environment in ["CartPole"] if arguments.quick or arguments.growth else installed(ENVIRONMENTS):
            for configuration, settings in (GROWTH if arguments.growth else CONFIGURATIONS).items():
                rows += measure(environment, configuration, settings, turns, clock)
    show(rows, arguments.json)


def installed(environments: Iterable[str]) -> list[str]:
    """Return the environments that can be made, and name the others: Hopper wants the package `mujoco`."""
    found = []
    for name in environments:
        try:
            make_environment(ENVIRONMENTS[name]).close()
        except InputError as error:
            print(f"{name} is skipped: {error}", file=sys.stderr)
        else:
            found.append(name)
    return found


def show(rows: list[Row], as_json: bool) -> None:
    """Print rows."""
    if as_json:
        print(json.dumps([vars(row) for row in rows], indent=1))
        return
    print(f"{'environment':12}{'':16}{'contender':24}{'steps/s':>10}{'ratio':>8}   quartiles")
    for row in rows:
        learned = "" if row.learned is None else f"   learned {row.learned:,.0f}"
        print(
            f"{row.environment:12}{row.configuration:16}{row.contender:24}{row.steps_per_second:10,.0f}"
            f"{row.ratio:8.2f}   {row.ratio_low:.2f} to {row.ratio_high:.2f}{learned}"
        )


def measure(
    environment: str, configuration: str, settings: Settings, turns: int, clock: Callable[[], float]
) -> list[Row]:
    """Let all contenders take turns in one configuration."""
    spec = ENVIRONMENTS[environment]
    contenders = {BASE: stock(spec, settings)}
    contenders |= {engine: ours(spec, settings, engine) for engine in ("torch", "numpy")}
    if environment in BATCHED:
        contenders["numpy, batched"] = ours(spec, settings, "numpy", batched(environment, settings["n_envs"]))
    elif environment == "rooms":
        contenders["numpy, in-process"] = ours(
            Environment(spec.id, vectorize="in-process", **spec.kwargs), settings, "numpy"
        )
    rows = take_turns(environment, configuration, contenders, settings, turns, clock)
    limit = roofline(settings, clock)
    return [*rows, Row(environment, configuration, "roofline", limit, limit / rows[0].steps_per_second, 0, 0)]


def take_turns(
    environment: str,
    configuration: str,
    contenders: dict[str, Contender],
    settings: Settings,
    turns: int,
    clock: Callable[[], float],
) -> list[Row]:
    """Let contenders take turns; two more turns before them do not count, in which programs are compiled."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in [*contenders.values()] * 2:
        contender.turn()
    for _ in range(turns):
        for name, contender in contenders.items():
            started = clock()
            contender.turn()
            seconds[name].append(clock() - started)
    steps = settings["n_envs"] * settings["n_steps"]
    rows = []
    for name, taken in seconds.items():
        low, middle, high = np.percentile(np.array(seconds[BASE]) / np.array(taken), [25, 50, 75])
        rows.append(Row(environment, configuration, name, steps / float(np.median(taken)), middle, low, high))
    return rows


def stock(
    spec: Environment, settings: Settings, env: VecEnv | None = None, seed: int = 0, make: Any = PPO
) -> Contender:
    """Return stable-baselines3's own `learn()`, or that of another class with the same methods."""
    if env is None:
        env = DummyVecEnv([lambda: make_environment(spec)] * settings["n_envs"])
        env.seed(seed)
    # A seed that is given to the model would be given to the first episodes too.
    set_random_seed(seed)
    hidden = list(settings.get("network", D["network"]))
    chosen = {name: value for name, value in settings.items() if name not in ("n_envs", "network")}
    model = make("MlpPolicy", env, policy_kwargs={"net_arch": {"pi": hidden, "vf": hidden}}, device="cpu", **chosen)
    _, callback = model._setup_learn(1)
    assert isinstance(callback, BaseCallback)

    def turn() -> None:
        model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
        model.train()

    return Contender(turn, lambda seen: model.predict(seen, deterministic=True)[0])


def ours(spec: Environment, settings: Settings, engine: str, env: VecEnv | None = None, seed: int = 0) -> Contender:
    """Return a fine-tuning stage, with its events and its gate."""
    agent = Agent("PPO", engine=engine, **settings)
    copies = env or make_vec_env(spec, agent.n_envs, seed, 0)
    learner = Learner(agent, copies.observation_space, copies.action_space, seed)
    stage = FineTuning("tune", spec, until=NEVER, max_steps=10**9, critic_fit_steps=0, evaluation_episodes=0)
    runner = FineTuningRunner(StageContext(learner, seed, lambda payload: None, Path("none"), [stage]))
    runner.parts.envs.env = copies
    learner.algorithm.begin(copies)
    runner.step()
    return Contender(runner.step, lambda seen: learner.algorithm.model.predict(seen, deterministic=True)[0])


def batched(environment: str, copies: int, seed: int = 0) -> EpisodeMonitor:
    """Return one of `BATCHED` behind the project's own wrappers."""
    seeds = [EpisodeSeeds(seed, 0, Purpose.TRAINING, copy) for copy in range(copies)]
    return EpisodeMonitor(BatchedVecEnv(BATCHED[environment](copies), seeds), ENVIRONMENTS[environment])


def roofline(settings: Settings, clock: Callable[[], float]) -> float:
    """Return environment steps per second if an update were only the matrix products of the second hidden layers."""
    size, width = settings["batch_size"], settings["network"][0]
    batch, weights = np.ones((size, width), np.float32), np.ones((width, width), np.float32)
    out, gradient = np.empty((size, width), np.float32), np.empty((width, width), np.float32)
    taken = []
    for _ in range(200):
        started = clock()
        for _ in range(2):
            np.matmul(batch, weights, out=out)
            np.matmul(out.T, batch, out=gradient)
            np.matmul(out, weights, out=batch)
            batch.fill(1.0)
        taken.append(clock() - started)
    steps = settings["n_envs"] * settings["n_steps"]
    return steps / (float(np.median(taken)) * settings["n_epochs"] * steps / size)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
