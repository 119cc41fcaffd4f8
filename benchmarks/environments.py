"""Environment steps per second without a policy: batches, what is put around a step, and copies in processes.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/environments.py [--quick] [--json]

Batches are stepped by random actions, and copies whose episodes have ended are reset at once. Before anything is
measured, each copy has been reset at a moment of its own, so that episodes end one by one, as they do in training.
What is compared with each other takes turns; figures are medians over the turns, and ratios are medians of each turn's
ratio.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from rlstages import BatchedEnv, Environment
from rlstages.environments.make import make_environment, make_vec_env
from rlstages_envs.pointmaze import BatchedPointMaze
from rlstages_envs.rooms import BatchedRooms

BATCH, COPIES, PROCESSES = 256, 8, 4
Turn = Callable[[], None]
Clock = Callable[[], float]


class Pictures(gym.Env):
    """Shows a picture that costs nothing to draw.

    Args:
        shape: Of the picture; one number stands for a vector.
        work: Seconds of processor time that a step takes besides.
    """

    action_space = gym.spaces.Discrete(2)

    def __init__(self, shape: tuple[int, ...], work: float = 0.0) -> None:
        self.observation_space = gym.spaces.Box(0, 255, tuple(shape), np.uint8)
        self.picture = np.full(shape, 7, np.uint8)
        self.work = work

    def reset(self, *, seed=None, options=None):
        """Start an episode."""
        super().reset(seed=seed)
        self.time = 0
        return self.picture, {}

    def step(self, action):
        """Work for a while."""
        self.time += 1
        until = time.process_time() + self.work
        while self.work and time.process_time() < until:
            pass
        return self.picture, 0.0, False, self.time >= 200, {}


@dataclass
class Row:
    """One contender; its ratio is to the first of its kind."""

    kind: str
    contender: str
    steps_per_second: float
    microseconds: float
    ratio: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few turns")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: where others use the machine")
    arguments = parser.parse_args()
    turns = 3 if arguments.quick else 15
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    rows = [*batches(turns, clock), *around_a_step(turns, clock)]
    for shape, work in (((8,), 0.0), ((84, 84, 4), 0.0), ((84, 84, 4), 1e-3)):
        rows += processes(turns, shape, work)
    if arguments.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
        return
    print(f"{'':34}{'':24}{'steps/s':>12}{'us a call':>12}{'ratio':>8}")
    for row in rows:
        print(f"{row.kind:34}{row.contender:24}{row.steps_per_second:12,.0f}{row.microseconds:12,.0f}{row.ratio:8.2f}")


def batches(turns: int, clock: Clock) -> list[Row]:
    """Step the package's own batches, resets included."""
    contenders = {
        "rooms, 2 rooms": BatchedRooms(BATCH, rooms=2),
        "rooms, 6 rooms": BatchedRooms(BATCH, rooms=6, size=7),
        "pointmaze, 3 x 3": BatchedPointMaze(BATCH),
        "pointmaze, 12 x 12, 3 goals": BatchedPointMaze(BATCH, size=12, goals=3),
    }
    calls = 200
    played = {name: in_turn(env, calls) for name, env in contenders.items()}
    return measured(f"{BATCH} copies in a batch", played, turns, calls, BATCH, clock)


def in_turn(env: BatchedEnv, calls: int) -> Turn:
    """Return a turn of a batch whose episodes end one by one."""
    draw = np.random.default_rng(0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(50)]
    env.reset(seed=0)

    def play(calls: int, also: np.ndarray | None = None) -> None:
        for call in range(calls):
            _, _, terminated, truncated, _ = env.step(actions[call % len(actions)])
            ended = terminated | truncated
            if also is not None:
                ended |= also == call
            if ended.any():
                env.reset(options={"reset_mask": ended})

    play(env.max_steps, also=draw.integers(0, env.max_steps, BATCH))
    return partial(play, calls)


def around_a_step(turns: int, clock: Clock) -> list[Row]:
    """Step copies of CartPole: alone in a loop, behind stable-baselines3, and as a stage does."""
    spec, calls = Environment("CartPole-v1"), 500
    actions = np.random.default_rng(0).integers(0, 2, (calls, COPIES))
    alone = [make_environment(spec) for _ in range(COPIES)]
    for env in alone:
        env.reset(seed=0)

    def loop() -> None:
        for row in actions:
            for env, action in zip(alone, row, strict=True):
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

    contenders: dict[str, Turn] = {"a bare loop": loop}
    contenders["stable-baselines3"] = of(DummyVecEnv([partial(make_environment, spec)] * COPIES), actions)
    contenders["a stage's copies"] = of(make_vec_env(spec, COPIES, 0, 0), actions)
    if hasattr(gym.vector, "AutoresetMode"):
        batch = Environment(spec.id, vectorize="batched")
        contenders["gymnasium's own batch"] = of(make_vec_env(batch, COPIES, 0, 0), actions)
    return measured(f"{COPIES} copies of CartPole", contenders, turns, calls, COPIES, clock)


def processes(turns: int, shape: tuple[int, ...], work: float) -> list[Row]:
    """Step copies in one process, in several as stable-baselines3 does, and in several as a stage does."""
    calls = 50
    kwargs = {"shape": list(shape), "work": work}
    actions = np.random.default_rng(0).integers(0, 2, (calls, PROCESSES))
    here = make_vec_env(Environment(Pictures, **kwargs), PROCESSES, 0, 0)
    stock = SubprocVecEnv([partial(Pictures, **kwargs)] * PROCESSES, start_method="forkserver")
    apart = make_vec_env(Environment(Pictures, vectorize="subprocess", **kwargs), PROCESSES, 0, 0)
    envs: dict[str, VecEnv] = {"in-process": here, "stable-baselines3": stock, "subprocess": apart}
    took = f", {1000 * work:g} ms of work" if work else ""
    name = f"{PROCESSES} x {' x '.join(map(str, shape))}{took}"
    try:
        played = {who: of(env, actions) for who, env in envs.items()}
        # The other processes' time is none of this one's, so only a clock on the wall will do.
        return measured(name, played, turns, calls, PROCESSES, time.perf_counter)
    finally:
        for env in envs.values():
            env.close()


def of(env: VecEnv, actions: np.ndarray) -> Turn:
    """Return a turn of copies behind stable-baselines3's interface."""
    env.reset()

    def turn() -> None:
        for row in actions:
            env.step(row)
        if hasattr(env, "take"):
            env.take()

    return turn


def measured(kind: str, contenders: dict[str, Turn], turns: int, calls: int, copies: int, clock: Clock) -> list[Row]:
    """Let contenders take turns of `calls` calls each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1 + turns):
        for name, turn in contenders.items():
            started = clock()
            turn()
            if number:
                seconds[name].append(clock() - started)
    first = np.array(next(iter(seconds.values())))
    rows = []
    for name, taken in seconds.items():
        each = float(np.median(taken)) / calls
        rows.append(Row(kind, name, copies / each, 1e6 * each, float(np.median(first / np.array(taken)))))
    return rows


if __name__ == "__main__":
    main()
