"""The examiner: scores the frozen policy, or judges it by a stage's criterion, in separate environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from rlstages.environments.make import make_vec_env
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.events import Emit, Evaluated, Warned
from rlstages.learners.learner import Learner
from rlstages.play.play import play_episodes, play_wave
from rlstages.specs.criteria import Criterion, Verdict, spend
from rlstages.specs.criteria.episodes import Episode, Score, episodes_of, rows_of, score
from rlstages.specs.environment import Environment


class Examiner:
    """Plays episodes of a stage's environment with the current policy, without changing it.

    Args:
        environment: Environment of the stage.
        stage: Index of the stage.
        learner: Learner that owns the policy.
        run_seed: Seed of the run.
        emit: Function that takes events.

    Attributes:
        attempt: Number of the current confirmation; 0 before the first.
        episodes: Episodes of the current confirmation so far.
    """

    def __init__(self, environment: Environment, stage: int, learner: Learner, run_seed: int, emit: Emit) -> None:
        self.attempt = 0
        self.episodes: list[Episode] = []
        self._environment, self._stage, self._learner, self._run_seed = environment, stage, learner, run_seed
        self._emit = emit
        self._env: VecEnv | None = None

    def play(self, episodes: int) -> list[Episode]:
        """Play at least `episodes` episodes, with the same seeds every time."""
        if episodes == 0:
            return []
        return play_episodes(
            self._learner.algorithm, self._copies(), episodes, self._run_seed, self._stage, self._deterministic
        )

    def play_again(self, number: int) -> list[Episode]:
        """Play one of the waves of `play`, by its number from 0."""
        return self._wave(Purpose.EVALUATION, 0, number)

    def score(self, purpose: str, played: Sequence[Episode]) -> Score | None:
        """Emit and return the score of episodes; return `None` if there are none."""
        if not played:
            return None
        result = score(played)
        self._emit(Evaluated(purpose, result))
        return result

    def screen(self, number: int, episodes: int) -> list[Episode]:
        """Play at least `episodes` episodes whose seeds depend on `number`."""
        played: list[Episode] = []
        while len(played) < episodes:
            played += self._wave(Purpose.SCREENING, number, len(played))
        return played

    def begin_attempt(self) -> None:
        """Start a confirmation with no episodes."""
        self.attempt += 1
        self.episodes = []

    def judge(self, criterion: Criterion) -> Verdict:
        """Play one more episode in each environment, and judge all episodes of the confirmation."""
        self.episodes += self._wave(Purpose.CONFIRMATION, self.attempt, len(self.episodes))
        return criterion.judge(self.episodes, spend(self.attempt))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the current confirmation."""
        return {"attempt": self.attempt, "episodes": rows_of(self.episodes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the current confirmation."""
        self.attempt = state["attempt"]
        self.episodes = episodes_of(state["episodes"])

    def close(self) -> None:
        """Close the environments."""
        if self._env is not None:
            self._env.close()

    @property
    def _deterministic(self) -> bool:
        return self._learner.agent.action_mode == "deterministic"

    def _wave(self, purpose: Purpose, block: int, number: int) -> list[Episode]:
        seed = episode_seed(self._run_seed, self._stage, purpose, block, number)
        return play_wave(self._learner.algorithm, self._copies(), seed, self._deterministic)

    def _copies(self) -> VecEnv:
        if self._env is None:
            n_envs = self._learner.agent.n_envs
            self._env = make_vec_env(
                self._environment,
                n_envs,
                self._run_seed,
                self._stage,
                Purpose.EVALUATION,
                warn=lambda sentence: self._emit(Warned(sentence)),
            )
        return self._env
