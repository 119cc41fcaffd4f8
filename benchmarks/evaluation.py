"""What a step of an evaluation costs with stable-baselines3's `predict` and with each engine, in turns.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/evaluation.py rooms

Both play waves of one episode in each copy of a curriculum's last environment, as gates and evaluations do, with the
untrained policy. Printed are medians of processor time for a step of all copies, and the median of each pair's ratio.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy

from rlstages import load_curriculum
from rlstages.environments.make import make_vec_env
from rlstages.environments.seeding import Purpose
from rlstages.learners.learner import Learner
from rlstages.play.play import play_wave


class Predicting:
    """Acts with `predict`, as an engine would."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self._policy = policy

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return what acts; it draws from torch's global generator."""
        return lambda observations: self._policy.predict(observations, deterministic=deterministic)[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of a curriculum, or its file")
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    curriculum = load_curriculum(options.name)
    agent = curriculum.agent
    env = make_vec_env(curriculum.stages[-1].environment, agent.n_envs, 0, 0, Purpose.EVALUATION)
    for name in ("numpy", "torch"):
        learner = Learner(replace(agent, engine=name), env.observation_space, env.action_space, 0)
        for deterministic in (False, True):
            taken = []
            for turn in range(options.turns):
                pair = []
                for player in (Predicting(learner.policy), learner.algorithm.engine):
                    started = time.process_time()
                    played = play_wave(player, env, turn, deterministic)
                    pair.append((time.process_time() - started) / max(episode.length for episode in played))
                taken.append(pair)
            predict, engine = np.median(taken, axis=0) * 1e6
            ratio = np.median([one / other for one, other in taken])
            mode = "likeliest actions" if deterministic else "sampled actions"
            print(f"{name:6} {mode:18} predict {predict:4.0f} us, engine {engine:4.0f} us, ratio {ratio:.2f}")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
