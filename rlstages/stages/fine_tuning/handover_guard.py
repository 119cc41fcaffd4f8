"""The hand-over guard: if the first updates destroy the clone, it is restored and the next updates are smaller.

The other protections of the hand-over (critic fit, kept noise, KL term) make a drop unlikely; the guard detects one.
Like a gate, it has two steps. Training episodes only raise a suspicion. Then the frozen policy plays fresh
episodes, wave
by wave, until they show no drop or until all of the clone's episodes can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtr

from rlstages.events import Emit, HandoverChecked, HandoverRecovered, Warned
from rlstages.learners.learner import Learner, Weights, arrays, tensors
from rlstages.specs.criteria import spend
from rlstages.specs.criteria.episodes import Episode, episodes_of, rows_of, score, shown, values_of
from rlstages.specs.stages.fine_tuning import FineTuning

MARGIN = 0.05
"""Smallest drop that counts: in success, or as a share of the clone's mean return or its spread (the larger one)."""
LEAST_SEEN = 16
_FELL = (
    "The first updates took the clone from {before} to {after}, {again}; lower learning_rate, raise anchor_kl, or "
    "leave exploration out."
)


class HandoverGuard:
    """Compares the policy after its first updates with the clone.

    Both play episodes with the same seeds, so the test is paired. These episodes are played only if training
    episodes are
    worse than the clone's, or if the policy is judged by deterministic actions, about which training episodes say
    nothing.
    After a drop, the guard restores the clone's weights and statistics, its fitted critic and its exploration
    noise, with
    a new optimiser. Then learning rate and clip range are halved, and the weight of the KL term is doubled.

    Args:
        stage: Spec of the stage, which says when to compare and how often to restore the clone.
        learner: Learner that owns the policy.
        emit: Function that takes events.

    Attributes:
        began: Step of the stage at which the current series of updates began.
        rollbacks: Number of times that the clone was restored.
    """

    def __init__(self, stage: FineTuning, learner: Learner, emit: Emit) -> None:
        self.began = 0
        self.rollbacks = 0
        self._stage, self._learner, self._emit = stage, learner, emit
        self._first = 0
        self._clone: list[Episode] = []
        self._seen: list[Episode] = []
        self._played: list[Episode] = []
        self._updated = False
        self._kept: Weights | None = None
        self._to_recover: float | None = None

    @property
    def step_scale(self) -> float:
        """Factor of learning rate and clip range."""
        return 0.5**self.rollbacks

    @property
    def anchor_scale(self) -> float:
        """Factor of the KL term's weight."""
        return 2.0**self.rollbacks

    @property
    def waves(self) -> int:
        """Number of waves that have been played for the current comparison."""
        return len(self._played) // self._learner.agent.n_envs

    def begin(self, clone: Sequence[Episode], began: int) -> None:
        """Begin to guard a policy that has just been cloned, before its noise is changed.

        Args:
            clone: Episodes of the clone. Without episodes, nothing is guarded.
            began: Step of the stage at which the first update will be.
        """
        self.began = self._first = began
        if self._stage.guard_steps and clone:
            self._clone, self._kept = list(clone), self._learner.weights()

    def keep_critic(self, began: int) -> None:
        """Store the fitted critic and the statistics with the clone that may be restored.

        Args:
            began: Step of the stage at which the first update is.
        """
        self.began = began
        self._first = self._first if self.rollbacks else began
        if self._kept is not None:
            noise = {name: value for name, value in self._kept.items() if name == "log_std"}
            self._kept = {**self._learner.weights(), **noise}

    def note(self, finished: Sequence[Episode]) -> None:
        """Take the training episodes that a rollout has finished. Those before the first update belong to the clone."""
        if self._kept is not None and self._updated:
            self._seen += finished

    def wants_a_look(self, stage_steps: int) -> bool:
        """Return, after an update, whether fresh episodes are needed for a comparison.

        If the training episodes already show that there is no drop, an event says so.
        """
        self._updated = True
        due = stage_steps - self.began >= self._stage.guard_steps and len(self._seen) >= LEAST_SEEN
        if self._kept is None or not due:
            return False
        before, now = self._values(self._clone), self._values(self._seen)
        if self._learner.agent.action_mode == "deterministic" or self._is_drop(before, now):
            return True
        self._tell(self._seen, stage_steps, None)
        self._let_go()
        return False

    def judge(self, played: Sequence[Episode], stage_steps: int) -> bool | None:
        """Compare episodes of the policy with the clone's episodes of the same seeds.

        Args:
            played: One more wave of episodes, in the order of the clone's.
            stage_steps: Environment steps of the stage so far, including those of `played`.

        Returns:
            Whether the clone was restored, or `None` if another wave is needed.
        """
        self._played += played
        before, after = self._values(self._clone[: len(self._played)]), self._values(self._played)
        dropped = self._is_drop(before, after)
        if dropped and len(before) < len(self._clone):
            return None
        p_value = p_value_of_drop(before, after)
        fell = dropped and p_value <= spend(self.rollbacks + 1)
        back = fell and self.rollbacks < self._stage.guard_rollbacks
        self._tell(self._played, stage_steps, p_value, fell, back)
        if back:
            self._roll_back(stage_steps)
            return True
        if fell:
            self._warn(before.mean(), after.mean())
        self._let_go()
        return False

    def settle(self, confirmed: Sequence[Episode], stage_steps: int) -> None:
        """Emit the result of the guard if the gate opens before the comparison, from the confirming episodes."""
        if self._kept is not None:
            self._tell(confirmed, stage_steps, None)
            self._let_go()

    def stop(self, stage_steps: int) -> None:
        """Stop guarding, because the policy was changed on purpose and updates begin anew."""
        self.began = stage_steps
        self._let_go()

    def look_for_recovery(self, recent: Sequence[Episode], stage_steps: int) -> None:
        """Emit an event once recent training episodes are as good as the clone's."""
        full = len(recent) >= self._stage.until.window
        if self._to_recover is not None and full and self._values(recent).mean() >= self._to_recover:
            self._to_recover = None
            self._emit(HandoverRecovered(stage_steps, stage_steps - self._first))

    def state_dict(self) -> dict[str, Any]:
        """Return the stored clone, its episodes, and the counters."""
        return {
            "began": self.began,
            "first": self._first,
            "rollbacks": self.rollbacks,
            "clone": rows_of(self._clone),
            "seen": rows_of(self._seen),
            "played": rows_of(self._played),
            "updated": self._updated,
            "kept": None if self._kept is None else arrays(self._kept),
            "to_recover": self._to_recover,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.began, self._first, self.rollbacks = state["began"], state["first"], state["rollbacks"]
        self._clone, self._seen, self._played = (episodes_of(state[name]) for name in ("clone", "seen", "played"))
        self._updated = state["updated"]
        self._kept = None if state["kept"] is None else tensors(state["kept"])
        self._to_recover = state["to_recover"]

    def _roll_back(self, stage_steps: int) -> None:
        assert self._kept is not None
        self._learner.load_policy(self._kept)
        self._learner.algorithm.rebuild_optimizers()
        self.rollbacks += 1
        self.began, self._updated = stage_steps, False
        self._seen, self._played = [], []

    def _let_go(self) -> None:
        """Stop guarding."""
        self._kept, self._clone, self._seen, self._played = None, [], [], []

    def _tell(
        self,
        played: Sequence[Episode],
        stage_steps: int,
        p_value: float | None,
        fell: bool = False,
        back: bool = False,
    ) -> None:
        before, after = score(self._clone), score(played)
        self._emit(HandoverChecked(self.rollbacks + 1, stage_steps, before, after, p_value, fell, back))
        clone = self._values(self._clone)
        if self._is_drop(clone, self._values(played)):
            self._to_recover = float(clone.mean())

    def _values(self, episodes: Sequence[Episode]) -> np.ndarray:
        return values_of(self._stage.until.measure, episodes)

    def _is_drop(self, before: np.ndarray, after: np.ndarray) -> bool:
        size = 1.0 if self._stage.until.measure == "success" else max(abs(float(before.mean())), float(before.std()))
        return bool(before.mean() - after.mean() >= MARGIN * size)

    def _warn(self, *means: float) -> None:
        times = {0: "and the guard may not go back", 1: "after one rollback"}
        again = times.get(self.rollbacks, f"after {self.rollbacks} rollbacks")
        before, after = (shown(self._stage.until.measure, mean) for mean in means)
        self._emit(Warned(_FELL.format(before=before, after=after, again=again)))


def p_value_of_drop(before: np.ndarray, after: np.ndarray) -> float:
    """Return the p-value of Student's paired one-sided test of 'the mean has not fallen'.

    Args:
        before: Values before, shape `(n,)`.
        after: Values after, in the same order, shape `(n,)`.
    """
    both = _near_one(np.stack([before, after]))
    change = _near_one(both[1] - both[0])
    if len(change) < 2 or np.ptp(change) == 0.0:
        return 0.0 if len(change) > 1 and change[0] < 0.0 else 1.0
    standard_error = change.std(ddof=1) / np.sqrt(len(change))
    return float(stdtr(len(change) - 1, change.mean() / standard_error))


def _near_one(values: np.ndarray) -> np.ndarray:
    """Scale values by a power of two so that the largest lies in [0.5, 1] and no square overflows or underflows."""
    _, exponent = np.frexp(np.abs(values).max(initial=0.0))
    scaled: np.ndarray = np.ldexp(values, -exponent)
    return scaled
