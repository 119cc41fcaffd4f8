"""The training environments of a stage: making, saving and restoring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, VecTransposeImage, unwrap_vec_wrapper

from rlstages.environments.joined import allot, concatenated, make_joined, parts_of
from rlstages.environments.monitor import EpisodeMonitor, monitor_of
from rlstages.environments.rewards import NormalizedRewards
from rlstages.events import Emit, Warned
from rlstages.learners.algorithms.base import Algorithm, Experience
from rlstages.learners.learner import Learner
from rlstages.reproducibility import random_state_kept
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.environment import Environment
from rlstages.specs.stages.fine_tuning import FineTuning

_NOT_AS_THEY_WERE = (
    "{environment}: replaying the seed and actions of their episodes did not bring copies {copies} back to where they "
    "were, so this run goes on close to, but not exactly, as it would have without the interruption."
)


class TrainingEnvs:
    """The training environments of a stage. They are made when they are first needed.

    Args:
        stage: Stage whose environment most of them run.
        earlier: Environments of earlier stages, which the others rehearse.
        learner: Learner that trains in them.
        run_seed: Seed of the run.
        index: Number of stages entered before, for the seeds.
        emit: Function that takes warnings.

    Attributes:
        env: Environments, or `None` before they are made.
    """

    def __init__(
        self,
        stage: FineTuning,
        earlier: Sequence[Environment],
        learner: Learner,
        run_seed: int,
        index: int,
        emit: Emit,
    ) -> None:
        self.env: VecEnv | None = None
        self._learner, self._emit, self._place = learner, emit, (run_seed, index)
        n_envs = learner.agent.n_envs
        self._allotment = allot(stage.environment, earlier, n_envs, stage.rehearsal_copies(n_envs))
        self._left_off: Mapping[str, Any] | None = None

    def open(self) -> VecEnv:
        """Return the environments. The first call makes new ones or restores those of an interrupted session."""
        if self.env is None:
            self.env = self._make()
        return self.env

    def _make(self) -> VecEnv:
        agent, algorithm, emit = self._learner.agent, self._learner.algorithm, self._emit
        env = make_joined(self._allotment, *self._place, warn=lambda sentence: emit(Warned(sentence)))
        if agent.normalize_rewards:
            env = NormalizedRewards(env, agent.algorithm.gamma)
        if self._left_off is None:
            algorithm.begin(env)
            return env
        back = restore_copies(algorithm, env, self._left_off)
        for (environment, _), lost in zip(self._allotment, back, strict=True):
            if lost:
                emit(Warned(_NOT_AS_THEY_WERE.format(environment=environment, copies=", ".join(map(str, lost)))))
        return env

    @property
    def monitor(self) -> EpisodeMonitor:
        """The monitor of the environments that run the stage's own variant."""
        return monitor_of(parts_of(self.open())[0])

    def collect(self, *, for_critic: bool) -> tuple[Experience, list[Episode]]:
        """Collect experience with the current policy.

        Args:
            for_critic: Whether only the critic will learn from it.

        Returns:
            Experience, and the episodes that have ended in the stage's own variant.
        """
        env = self.open()
        experience: Experience = self._learner.algorithm.collect(env, for_critic=for_critic)
        own, *_ = [monitor_of(part).take() for part in parts_of(env)]
        return experience, own

    def state_dict(self) -> Mapping[str, Any] | None:
        """Return the state of the environments, or `None` if they were never made."""
        return self._left_off if self.env is None else copies_state(self._learner.algorithm, self.env)

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restore what `state_dict` returned. The environments themselves are restored when they are next needed."""
        self._left_off = state

    def close(self) -> None:
        """Close the environments."""
        if self.env is not None:
            self.env.close()


def copies_state(algorithm: Algorithm, env: VecEnv) -> dict[str, Any]:
    """Return the state of all environments between two rollouts, and the statistics of their returns."""
    returns = None
    if isinstance(env, VecNormalize):
        moments = {name: float(getattr(env.ret_rms, name)) for name in ("mean", "var", "count")}
        returns = {"discounted": env.returns.copy(), **moments}
    return {
        "monitors": [monitor_of(part).state_dict() for part in parts_of(env)],
        "episode_starts": algorithm.standing()[1],
        "returns": returns,
    }


def restore_copies(algorithm: Algorithm, env: VecEnv, state: Mapping[str, Any]) -> list[list[int]]:
    """Restore new environments to a saved state, and let an algorithm continue training in them.

    Args:
        algorithm: Algorithm that continues training.
        env: New environments, made in the same way as the saved ones.
        state: Result of `copies_state`.

    Returns:
        For each part, the indices of environments that could not be restored exactly.
    """
    parts = parts_of(env)
    with random_state_kept():
        back = [_restore_part(part, monitor) for part, monitor in zip(parts, state["monitors"], strict=True)]
    begun = np.concatenate([monitor_of(part).lengths == 0 for part in parts])
    starts = np.array(state["episode_starts"], dtype=bool) | begun
    if isinstance(env, VecNormalize):
        moments = state["returns"]
        env.returns = np.array(moments["discounted"])
        env.returns[starts] = 0.0
        for name in ("mean", "var", "count"):
            setattr(env.ret_rms, name, moments[name])
    algorithm.begin(env, (concatenated([observations for observations, _ in back]), starts))
    return [lost for _, lost in back]


def _restore_part(part: VecEnv, state: Mapping[str, Any]) -> tuple[Any, list[int]]:
    observations, lost = monitor_of(part).load_state_dict(state)
    transposed = unwrap_vec_wrapper(part, VecTransposeImage)
    return (observations if transposed is None else transposed.transpose_observations(observations)), lost
