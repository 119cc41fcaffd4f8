"""Real learning curves to try gates on: the outcomes of many fresh episodes after every rollout of a last stage.

    python benchmarks/gate_curves.py rooms --seed 0 --rollouts 50

trains the curriculum with its last gate shut, and writes `runs/gates/rooms-s0.json`. The episodes
played for the curve are not the run's: it ends as it would have without them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from rlstages import Curriculum, FineTuning, RewardThreshold, SuccessThreshold, load_curriculum, train
from rlstages.environments.make import make_vec_env
from rlstages.environments.seeding import Purpose
from rlstages.events import Event, StageStarted
from rlstages.learners.learner import Learner
from rlstages.play.play import play_episodes
from rlstages.reproducibility import random_state_kept

BASE = Path("runs/gates")
SEED = 3_000_000
N_ENVS = 64


class Recorder:
    """Plays episodes with the policy after every rollout of the last stage.

    Args:
        curriculum: Being trained.
        rollouts: After so many of them the run is paused.
        episodes: Played each time.
    """

    def __init__(self, curriculum: Curriculum, rollouts: int, episodes: int) -> None:
        last = curriculum.stages[-1]
        assert isinstance(last, FineTuning)
        self._by_success = isinstance(last.until, SuccessThreshold)
        self._deterministic = curriculum.agent.action_mode == "deterministic"
        self._rollouts, self._episodes = rollouts, episodes
        self._env = make_vec_env(last.environment, N_ENVS, SEED, 0, Purpose.EVALUATION)
        self._stages, self._started, self._step = len(curriculum.stages), 0, -1
        self.pools: list[list[float]] = []

    def __call__(self, event: Event) -> None:
        """Follow the run's events."""
        self._started += isinstance(event.payload, StageStarted)

    def close(self) -> None:
        """Close the copies that episodes are played in."""
        self._env.close()

    def look(self, learner: Learner) -> str | None:
        """Play episodes if a rollout of the last stage has been learned from."""
        if self._started < self._stages or learner.global_step == self._step:
            return None
        self._step = learner.global_step
        with random_state_kept():
            played = play_episodes(
                learner.algorithm, self._env, self._episodes, SEED, len(self.pools), self._deterministic
            )
        self.pools.append([float(bool(e.success)) if self._by_success else e.total_reward for e in played])
        return "Enough is recorded." if len(self.pools) == self._rollouts else None


def record(name: str, seed: int, rollouts: int, episodes: int) -> Path:
    """Train, and write one curve: for each rollout a list of successes as 0 and 1, or of returns."""
    plain = load_curriculum(name)
    *before, last = plain.stages
    assert isinstance(last, FineTuning)
    assert isinstance(last.until, (SuccessThreshold, RewardThreshold))
    # A window that never fills: the gate stays shut.
    shut = dataclasses.replace(last.until, window=10**9)
    hard = dataclasses.replace(last, until=shut, max_steps=10**9)
    curriculum = Curriculum(plain.name, agent=plain.agent, stages=[*before, hard])
    recorder = Recorder(curriculum, rollouts, episodes)
    file = BASE / f"{name}-s{seed}.json"
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        train(curriculum, seed=seed, out=run, watch=recorder.look, trackers=[recorder])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recorder.pools))
    return file


def main() -> None:
    """Record one curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rollouts", type=int, default=50)
    parser.add_argument("--episodes", type=int, default=512)
    options = parser.parse_args()
    print(record(options.name, options.seed, options.rollouts, options.episodes))


if __name__ == "__main__":
    main()
