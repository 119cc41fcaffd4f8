"""The copies that a stage trains in: made, begun, saved, and brought back as they were."""

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
    """The copies that a stage trains in, opened when they are first needed.

    Args:
        stage: Whose environment most copies run.
        earlier: What the others rehearse in turn.
        learner: Trains in them.
        run_seed: Of the run.
        index: Of the stage.
        emit: Takes warnings.

    Attributes:
        env: The copies, or `None` until they are opened.
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
        """Return those of the rollout before, new ones, or those of an interrupted session as it left them."""
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
        """What counts the episodes of the stage's own environment."""
        return monitor_of(parts_of(self.open())[0])

    def collect(self, *, for_critic: bool) -> tuple[Experience, list[Episode]]:
        """Collect experience with the policy as it is.

        Args:
            for_critic: Whether only the critic learns from it.

        Returns:
            The experience, and the episodes that have ended in the stage's own environment.
        """
        env = self.open()
        experience: Experience = self._learner.algorithm.collect(env, for_critic=for_critic)
        own, *_ = [monitor_of(part).take() for part in parts_of(env)]
        return experience, own

    def state_dict(self) -> Mapping[str, Any] | None:
        """Return where the copies are, or `None` if they were never opened."""
        return self._left_off if self.env is None else copies_state(self._learner.algorithm, self.env)

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what `state_dict` returned; the copies are brought back when they are next needed."""
        self._left_off = state

    def close(self) -> None:
        """Close them."""
        if self.env is not None:
            self.env.close()


def copies_state(algorithm: Algorithm, env: VecEnv) -> dict[str, Any]:
    """Return where all copies are between two rollouts, and the statistics of their returns."""
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
    """Let an algorithm train on in environments that are brought back to where they were.

    Args:
        algorithm: Goes on training.
        env: New copies, made as those were.
        state: What `copies_state` returned.

    Returns:
        The copies of each part that did not come back as they were.
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
