"""The guard of exploration: a policy that is certain of the wrong thing is made to try others, where evidence says so.

A clone's certainty costs nothing where the expert's way leads on, as in most curricula. It costs all there is to learn
where a variant asks for another way. Two findings tell, beside the certainty itself: hardly any success in a variant
from the start, or after a while, and no more than at the start.
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
"""The share of random actions, and the noise of continuous ones as a share of half their range."""
HARDLY, TOO_LITTLE = 0.15, 0.5
"""How far a policy has come to the threshold (`Criterion.progress`); the second where all episodes end alike."""
PATIENCE_STEPS, PATIENCE_ROLLOUTS = 20_000, 10
SUCCESS_LEVEL = 0.05
LATEST = 0.75
"""Share of a stage's steps; whoever is made to try more has to learn anew, and needs the rest for it."""
_ASKED_FOR = "exploration={share:g} is given"
_NOTHING = "{what} {value} at the start and a certain policy: it is made to try other actions"
_STILL = "{what} stands still at {value} and nothing is explored: the policy is made to try other actions"
_OFF = "the policy is certain of its actions; leave explore_again=False out, or give exploration={remedy:g}."
_OFF_NOTHING = "{what} {value} at the start, and nothing is explored: " + _OFF
_OFF_STILL = "{what} stands still at {value} and nothing is explored: " + _OFF


class ExplorationGuard:
    """Measures how much a policy explores as a stage begins, and gives exploration back once.

    Args:
        stage: Says whether.
        learner: Whose policy is guarded.
        emit: Takes events.
        seed: Of the order in which the policy learns to try more.

    Attributes:
        raised: Whether the policy was made to try more by evidence.
        changed: Whether it was by whatever reason.
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
        """Take what the policy played before the stage; without episodes nothing is given back."""
        self._before = list(played)

    def look(self, experience: Experience, recent: Sequence[Episode], stage_steps: int) -> bool:
        """Look at a rollout that nothing was learned from yet.

        Args:
            experience: The rollout.
            recent: The last training episodes.
            stage_steps: Of the stage so far.

        Returns:
            Whether the policy was changed, so that the rollout is another policy's.
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
        """Whether the policy that came of it is one to stay near: of a continuous one, only the noise has changed."""
        return self.raised and not self._continuous

    def state_dict(self) -> dict[str, Any]:
        """Return what was played before, and the counters."""
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
        """Say why a certain policy should try more; empty if it need not."""
        until = self._stage.until
        what, before, now = until.measure, self._values(self._before), self._values(recent)
        if not before:
            return ""
        start, level = sum(before) / len(before), sum(now) / max(1, len(now))
        if first:
            # A return that is low at the start may be anything; that nothing succeeds is plain.
            told = _NOTHING if what == "success" and until.progress(start) <= HARDLY else ""
        else:
            # Whoever succeeds now and then has something to learn from, and would lose it.
            enough = TOO_LITTLE if len(set(now)) == 1 else HARDLY
            short = len(now) >= until.window and until.progress(level) <= enough
            told = _STILL if short and chance_of_less(before, now) > SUCCESS_LEVEL else ""
        if told and not self._stage.explore_again:
            told = _OFF_NOTHING if first else _OFF_STILL
        # Of continuous actions it is the logarithm of their standard deviation.
        remedy = math.log(GIVEN_BACK_STD) if self._continuous else GIVEN_BACK
        return told.format(what=what, value=shown(what, start if first else level), remedy=remedy)

    def _values(self, episodes: Sequence[Episode]) -> list[float]:
        values: list[float] = values_of(self._stage.until.measure, episodes).tolist()
        return values
