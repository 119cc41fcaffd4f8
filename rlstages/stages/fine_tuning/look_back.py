"""Look-backs: while a stage trains, the policy is tested now and then in the environment of the stage before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, cast

from rlstages.events import Emit, LookedBack
from rlstages.learners.learner import Learner
from rlstages.play.examiner import Examiner
from rlstages.specs.criteria import spend
from rlstages.specs.criteria.decline import Decline, Level, level_of
from rlstages.specs.criteria.episodes import Episode, episodes_of, rows_of
from rlstages.specs.criteria.sequential import ALPHA
from rlstages.specs.stages.base import StageSpec
from rlstages.specs.stages.fine_tuning import FineTuning
from rlstages.stages.path import Way, returns_from

LOOK_SHARE = 0.05
"""Steps of look-backs that find no loss, as a share of the stage's steps."""
REFERENCE_EPISODES, LONGEST_LOOK = 48, 96
ERROR = ALPHA / 2
"""Error probability of all look-backs together. The other half belongs to the interval of the level (2.5 %)."""


def stage_to_look_back_at(stages: Sequence[StageSpec], way: Way) -> FineTuning | None:
    """Return the stage to which the run would go back, or `None` if the current stage may not go back."""
    stage = stages[way[-1]]
    if not isinstance(stage, FineTuning) or stage.on_collapse != "return":
        return None
    before = stages[way[-1] - 1]
    may_return = returns_from(way, way[-1]) < stage.max_returns
    return before if may_return and isinstance(before, FineTuning) else None


class LookBack:
    """Tests whether the policy has lost the skill of the stage before.

    The level of this skill is measured at the start of the stage, over a fixed number of episodes. Each look-back is a
    sequential test of its own, because the policy has changed since the last one. It plays one episode in each
    environment, and more only while their mean is below the level. Look-backs share an error budget like the
    confirmations of a gate.

    Args:
        before: Spec of the stage before.
        index: Number of stages entered before the current one.
        learner: Learner that owns the policy, which is not changed.
        run_seed: Seed of the run.
        emit: Function that takes events.
    """

    def __init__(self, before: FineTuning, index: int, learner: Learner, run_seed: int, emit: Emit) -> None:
        self._before, self._learner, self._emit = before, learner, emit
        self._examiner = Examiner(before.environment, index, learner, run_seed, emit)
        self._level: Level | None = None
        self._interval = self._due = 0
        self._look = self._waves = 0
        self._episodes: list[Episode] = []

    def begin(self) -> int:
        """Measure the level, and return the number of environment steps that this took."""
        reference = self._examiner.screen(0, REFERENCE_EPISODES)
        steps = sum(episode.length for episode in reference)
        self._level = level_of(self._before.until, reference)
        self._interval = round(self._learner.agent.n_envs * steps / len(reference) / LOOK_SHARE)
        self._due = steps + self._interval
        return steps

    def is_due(self, stage_steps: int) -> bool:
        """Return whether the next look-back is due."""
        return self._level is not None and stage_steps >= self._due

    def play(self) -> int:
        """Play one more episode in each environment, and return the number of environment steps that this took."""
        if not self._episodes:
            self._look += 1
        self._waves += 1
        played = self._examiner.screen(self._waves, 1)
        self._episodes += played
        return sum(episode.length for episode in played)

    def judge(self, stage_steps: int) -> tuple[Decline, bool]:
        """Judge the episodes of the current look-back.

        Args:
            stage_steps: Environment steps of the stage so far, including those of the look-back.

        Returns:
            Verdict on the decline, and whether the look-back is over.
        """
        assert self._level is not None
        decline = self._level.judge(self._episodes, spend(self._look, ERROR))
        over = decline.lost or decline.value >= decline.level or decline.episodes >= LONGEST_LOOK
        self._emit(LookedBack(self._look, self._before.name, stage_steps, decline, over))
        if over:
            self._episodes = []
            self._due = stage_steps + self._interval
        return decline, over

    def state_dict(self) -> dict[str, Any]:
        """Return the level, the counters and the current look-back."""
        return {
            "level": None if self._level is None else list(astuple(self._level)),
            "interval": self._interval,
            "due": self._due,
            "look": self._look,
            "waves": self._waves,
            "episodes": rows_of(self._episodes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._level = None if state["level"] is None else Level(*cast(list[Any], state["level"]))
        self._interval, self._due = state["interval"], state["due"]
        self._look, self._waves = state["look"], state["waves"]
        self._episodes = episodes_of(state["episodes"])

    def close(self) -> None:
        """Close the environments."""
        self._examiner.close()
