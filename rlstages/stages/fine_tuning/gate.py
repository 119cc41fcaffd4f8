"""The gate of a stage: its training episodes decide whether it is done, so most confirmations need no extra steps.

A confirmation is a sequential test of the null hypothesis 'no policy since it began was better than threshold minus
margin'. One begins with the stage, and another when recent episodes promise more than those in progress. All of them
share one error budget. The policy keeps learning during a confirmation. When the test is met, or when only the episodes
of a frozen policy are missing, the policy is frozen until it has played as many fresh episodes as the criterion
requires. These are on-policy data as well: if the gate stays shut, one update learns from all of them.

Episodes count in the order in which they began, and only when all earlier ones have ended. Otherwise, short episodes
would be overrepresented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from rlstages.specs.criteria import Criterion, Verdict, spend
from rlstages.specs.criteria.episodes import Episode, episodes_of, rows_of, shown, values_of
from rlstages.specs.criteria.sequential import ALPHA

Answer = Literal["open", "wait", "go on"]
"""The gate opens; or it needs more episodes of the frozen policy; or it stays shut and the policy keeps learning."""
AT_ONCE = 2
"""Maximum number of simultaneous confirmations."""
_FIRST_SHARES = (0.4, 0.3)
_FROZEN = "; the last {n}, all of them of the policy as it is now, have {value}"


class Gate:
    """The gate of a stage that is judged by its training episodes.

    Args:
        criterion: Criterion of the stage.

    Attributes:
        attempt: Number of the latest confirmation; 0 before the first.
    """

    def __init__(self, criterion: Criterion) -> None:
        self.attempt = 0
        self._criterion = criterion
        self._begun: dict[int, int] = {}
        self._changed = 0
        self._episodes: list[Episode] = []

    def begin(self, step: int) -> None:
        """Begin the next confirmation, with the episodes that begin at this step of the environments or later."""
        self.attempt += 1
        self._begun[self.attempt] = step

    def propose(self, recent: Sequence[Episode], begins: np.ndarray, step: int) -> None:
        """Begin a confirmation if recent training episodes promise more than the confirmations in progress."""
        window = recent[-self._criterion.window :]
        promising = len(window) == self._criterion.window and self._criterion.holds(window)
        if len(self._begun) < AT_ONCE and promising:
            judged = [self._in_order(begun, begins) for begun in self._begun.values()]
            if not any(episodes and self._criterion.holds(episodes) for episodes in judged):
                self.begin(step)

    def end(self) -> None:
        """End all confirmations, because their policy no longer exists."""
        self._begun, self._episodes = {}, []

    def changed(self, step: int) -> None:
        """Record that the policy was changed before this step of the environments."""
        self._changed = step

    def note(self, finished: Sequence[Episode]) -> None:
        """Take the episodes that a rollout has finished."""
        first = min(self._begun.values(), default=None)
        kept = [e for e in (*self._episodes, *finished) if first is not None and e.began >= first]
        self._episodes = sorted(kept, key=_place)

    def judge(self, begins: np.ndarray, last: bool) -> list[tuple[int, Verdict, Answer]]:
        """Judge the episodes so far by each confirmation in progress, and end those that can no longer be met.

        Args:
            begins: For each environment, the step at which its current episode began.
            last: Whether the current policy is final, because the stage's steps are spent.

        Returns:
            For each confirmation its number, its verdict and the answer. `met` is true only if the frozen policy
            confirms
            the test.
        """
        found = [(number, *self._judge(number, begins, last)) for number in self._begun]
        for number, verdict, _ in found:
            if verdict.futile:
                del self._begun[number]
        return found

    def frozen(self, number: int, begins: np.ndarray) -> list[Episode]:
        """Return the episodes of a confirmation that the current policy has played completely."""
        return self._frozen_ones(self._in_order(self._begun[number], begins))

    @property
    def under_way(self) -> bool:
        """Whether any confirmation is in progress."""
        return bool(self._begun)

    def state_dict(self) -> dict[str, Any]:
        """Return the confirmations in progress."""
        return {
            "attempt": self.attempt,
            "begun": [list(pair) for pair in self._begun.items()],
            "changed": self._changed,
            "episodes": rows_of(self._episodes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.attempt, self._changed = state["attempt"], state["changed"]
        self._begun = {number: step for number, step in state["begun"]}
        self._episodes = episodes_of(state["episodes"])

    def _judge(self, number: int, begins: np.ndarray, last: bool) -> tuple[Verdict, Answer]:
        criterion = self._criterion
        episodes = self._in_order(self._begun[number], begins)
        verdict = criterion.judge(episodes, share(number))
        fresh = self._frozen_ones(episodes)
        missing = criterion.frozen_episodes - len(fresh)
        if not verdict.met:
            # The frozen policy's episodes are also the last episodes of the test. How many the test needs is known
            # only after as many episodes have been seen.
            needed = verdict.episodes_needed
            near = needed is not None and 0 < needed <= min(missing, len(episodes)) and criterion.holds(episodes)
            return verdict, "wait" if (near or last) and not verdict.futile else "go on"
        if missing > 0:
            return replace(verdict, met=False, episodes_needed=missing), "wait"
        value = shown(criterion.measure, float(values_of(criterion.measure, fresh).mean()))
        reason = verdict.reason + _FROZEN.format(value=value, n=len(fresh))
        if criterion.holds(fresh):
            return replace(verdict, reason=reason), "open"
        return replace(verdict, met=False, futile=last, episodes_needed=None, reason=reason), "go on"

    def _frozen_ones(self, episodes: Sequence[Episode]) -> list[Episode]:
        return [episode for episode in episodes if episode.began >= self._changed]

    def _in_order(self, begun: int, begins: np.ndarray) -> list[Episode]:
        """Return the episodes of a confirmation in the order in which they began, up to the first unfinished one."""
        unfinished = ((step, copy) for copy, step in enumerate(begins.tolist()) if step >= begun)
        first = min(unfinished, default=None)
        return [e for e in self._episodes if e.began >= begun and (first is None or _place(e) < first)]


def _place(episode: Episode) -> tuple[int, int]:
    """Return the sort key for the order in which episodes began."""
    return episode.began, episode.copy


def share(number: int, alpha: float = ALPHA) -> float:
    """Return the share of the error budget for a confirmation, by its number from 1. All shares add up to `alpha`."""
    return spend(number, alpha, _FIRST_SHARES)
