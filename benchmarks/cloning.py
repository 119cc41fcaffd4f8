"""Samples per second of behaviour cloning: imitation's own loop, the same loop with our loader, and the NumPy engine.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/cloning.py [--json]

All clone the same 16,384 transitions of 8 numbers and 4 actions into two hidden layers of 64, one pass at a time, in
turns. Printed are medians over the turns and the median of each turn's ratio to imitation's own loop.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from imitation.algorithms import bc
from imitation.data.types import Transitions
from imitation.util.logger import HierarchicalLogger
from stable_baselines3.common.logger import Logger

from rlstages import Agent, BehaviorCloning, Environment
from rlstages.demonstrations.episodes import Demonstration, Demonstrations
from rlstages.learners.learner import Learner
from rlstages.stages.cloning_data import CloningData
from rlstages.stages.cloning_epochs import CloningEpochs

SIZE = 16_384
SEES, ACTS = gym.spaces.Box(-1.0, 1.0, (8,), np.float32), gym.spaces.Discrete(4)
Turn = Callable[[], None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--turns", type=int, default=9, help="turns of each contender")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: where others use the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    draw = np.random.default_rng(0)
    observations, actions = draw.uniform(-1, 1, (SIZE, 8)).astype(np.float32), draw.integers(0, 4, SIZE)
    rows = []
    for batch_size in (32, 256):
        contenders = {
            "imitation": stock(observations, actions, batch_size),
            "imitation, our loader": ours(observations, actions, batch_size, "torch"),
            "numpy": ours(observations, actions, batch_size, "numpy"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(arguments.turns + 1):
            for name, turn in contenders.items():
                started = clock()
                turn()
                seconds[name].append(clock() - started)
        base = np.array(seconds["imitation"][1:])
        for name, taken in seconds.items():
            ratio = float(np.median(base / np.array(taken[1:])))
            rate = SIZE / float(np.median(taken[1:]))
            rows.append({"batch_size": batch_size, "contender": name, "samples_per_second": rate, "ratio": ratio})
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['batch_size']:4}  {row['contender']:24}{row['samples_per_second']:10,.0f}{row['ratio']:8.2f}")


def stock(observations: np.ndarray, actions: np.ndarray, batch_size: int) -> Turn:
    """Return one pass of imitation's own loop, with its own loader."""
    shown = Transitions(observations, actions, np.array([{}] * SIZE), observations, np.zeros(SIZE, dtype=bool))
    trainer = bc.BC(
        observation_space=SEES,
        action_space=ACTS,
        rng=np.random.default_rng(0),
        policy=Learner(Agent("PPO"), SEES, ACTS, 0).policy,
        demonstrations=shown,
        batch_size=batch_size,
        device="cpu",
        custom_logger=HierarchicalLogger(Logger(None, [])),
    )
    return lambda: trainer.train(n_epochs=1, progress_bar=False, log_interval=10**9)


def ours(observations: np.ndarray, actions: np.ndarray, batch_size: int, engine: str) -> Turn:
    """Return one pass of a cloning stage over the same transitions."""
    learner = Learner(Agent("PPO", engine=engine), SEES, ACTS, 0)
    spec = Environment("CartPole-v1")
    stage = BehaviorCloning("clone", spec, demonstrations="none", batch_size=batch_size, held_out=0.0, max_epochs=10**6)
    steps = np.zeros(64, np.float32)
    parts = [slice(start, start + 64) for start in range(0, SIZE, 64)]
    # An episode has one observation more than actions.
    seen = [np.concatenate([observations[p], observations[:1]]) for p in parts]
    episodes = [Demonstration(each, actions[p], steps, None) for each, p in zip(seen, parts, strict=True)]
    return CloningEpochs(stage, learner, CloningData(Demonstrations(tuple(episodes)), stage, learner, 0), 0).pass_over


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
