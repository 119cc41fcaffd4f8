"""The exploration guard: a policy that is certain of the wrong actions is made to explore, if the evidence says so.

A clone's certainty does no harm where the expert's actions remain right, as in most curricula. It prevents all learning
where a variant needs other actions. Besides the certainty itself there are two kinds of evidence: hardly any success in
a variant at the start, or hardly any success after a while and no improvement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium import spaces

from rlstages.events import Emit, Warned
from rlstages.learners.algorithms.base import Experience
from rlstages.learners.exploration import exploration_event, explore_more, is_certain, measure_exploration
from rlstages.learners.learner import Learner
from rlstages.specs.criteria.episodes import Episode, chance_of_less, episodes_of, rows_of, shown, values_of
from rlstages.specs.stages.fine_tuning import FineTuning

GIVEN_BACK, GIVEN_BACK_STD = 0.6, 1.0
"""Share of random actions for discrete actions, and standard deviation for continuous ones (in half their range)."""
HARDLY, TOO_LITTLE = 0.15, 0.5
"""Largest progress to the threshold (`Criterion.progress`) that counts as none. The second number is for policies
whose episodes all have the same return."""
PATIENCE_STEPS, PATIENCE_ROLLOUTS = 20_000, 10
SUCCESS_LEVEL = 0.05
LATEST = 0.75
"""Share of a stage's steps after which exploration is not restored, because too few remain to learn anew."""
_ASKED_FOR = "exploration={share:g} is given"
_NOTHING = "{what} {value} at the start and a certain policy: it is made to try other actions"
_STILL = "{what} stands still at {value} and nothing is explored: the policy is made to try other actions"
_OFF = "the policy is certain of its actions; leave explore_again=False out, or give exploration={remedy:g}."
_OFF_NOTHING = "{what} {value} at the start, and nothing is explored: " + _OFF
_OFF_STILL = "{what} stands still at {value} and nothing is explored: " + _OFF


class ExplorationGuard:
    """Measures how much a policy explores at the start of a stage, and restores exploration at most once.

    Args:
        stage: Spec of the stage, which can switch the guard off.
        learner: Learner that owns the policy.
        emit: Function that takes events.
        seed: Seed of the order in which the policy learns to explore.

    Attributes:
        raised: Whether exploration was restored because of evidence.
        changed: Whether exploration was restored for any reason.
    """

    def __init__(self, stage: FineTuning, learner: Learner, emit: Emit, seed: int) -> None:
        self._continuous = isinstance(learner.action_space, spaces.Box)
        share = 0.0 if self._continuous else stage.exploration or 0.0
        self.raised = self.changed = False
        self._share = share
        self._stage, self._learner, self._emit, self._seed = stage, learner, emit, seed
        self._before: list[Episode] = []
        self._rollouts = 0
        self._done = False

    def begin(self, played: Sequence[Episode]) -> None:
        """Take the policy's episodes before the stage. Without episodes, exploration is not restored."""
        self._before = list(played)

    def look(self, experience: Experience, recent: Sequence[Episode], stage_steps: int) -> bool:
        """Examine a rollout before the policy learns from it, and restore exploration if necessary.

        Args:
            experience: Rollout.
            recent: Latest training episodes.
            stage_steps: Environment steps of the stage so far.

        Returns:
            Whether the policy was changed, so that the rollout no longer belongs to it.
        """
        self._rollouts += 1
        policy, first = self._learner.policy, self._rollouts == 1
        patient = stage_steps < PATIENCE_STEPS or self._rollouts < PATIENCE_ROLLOUTS
        if not first and (self._done or patient):
            return False
        states = experience.states()
        measured = measure_exploration(policy, states)
        reason = ""
        asked_for = first and self._share > 0
        if asked_for:
            reason = _ASKED_FOR.format(share=self._share)
        elif stage_steps <= LATEST * self._stage.max_steps and is_certain(measured):
            reason = self._found(recent, first)
        self._done = bool(reason) or (not first and len(recent) >= self._stage.until.window)
        if reason and not asked_for and not self._stage.explore_again:
            self._emit(Warned(reason))
            reason = ""
        if first or reason:
            self._emit(exploration_event(measured, stage_steps, reason))
        if not reason:
            return False
        self.changed, self.raised = True, not asked_for
        given = GIVEN_BACK_STD if self._continuous else GIVEN_BACK
        explore_more(policy, states, self._share if asked_for else given, self._seed)
        return True

    @property
    def anchors(self) -> bool:
        """Whether the new policy becomes the reference policy; a continuous one does not: only its noise changed."""
        return self.raised and not self._continuous

    def state_dict(self) -> dict[str, Any]:
        """Return the episodes from before the stage, and the counters."""
        return {
            "raised": self.raised,
            "changed": self.changed,
            "rollouts": self._rollouts,
            "done": self._done,
            "before": rows_of(self._before),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.raised, self.changed = state["raised"], state["changed"]
        self._rollouts, self._done = state["rollouts"], state["done"]
        self._before = episodes_of(state["before"])

    def _found(self, recent: Sequence[Episode], first: bool) -> str:
        """Return the reason why a certain policy should explore more, or an empty string."""
        until = self._stage.until
        what, before, now = until.measure, self._values(self._before), self._values(recent)
        if not before:
            return ""
        start, level = sum(before) / len(before), sum(now) / max(1, len(now))
        if first:
            # At the start, a low return may have many causes, whereas a missing success is clear evidence.
            told = _NOTHING if what == "success" and until.progress(start) <= HARDLY else ""
        else:
            # A policy that succeeds now and then has something to learn from, and would lose it.
            enough = TOO_LITTLE if len(set(now)) == 1 else HARDLY
            short = len(now) >= until.window and until.progress(level) <= enough
            told = _STILL if short and chance_of_less(before, now) > SUCCESS_LEVEL else ""
        if told and not self._stage.explore_again:
            told = _OFF_NOTHING if first else _OFF_STILL
        # For continuous actions, `exploration` is the log standard deviation.
        remedy = math.log(GIVEN_BACK_STD) if self._continuous else GIVEN_BACK
        return told.format(what=what, value=shown(what, start if first else level), remedy=remedy)

    def _values(self, episodes: Sequence[Episode]) -> list[float]:
        values: list[float] = values_of(self._stage.until.measure, episodes).tolist()
        return values
