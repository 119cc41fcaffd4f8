"""The gate of a stage: the episodes that it trains on decide whether it is done, so confirmations cost no steps.

A confirmation is a sequential test of 'no policy since it began was better than threshold minus margin'. One begins
with the stage, and another where recent episodes promise more than those under way say; all share one error budget.
While a confirmation is under way the policy goes on learning. Once it is met, or so near that what it lacks are the
episodes of a frozen policy, the policy that the stage would leave is frozen until it has played as many fresh ones as
the criterion asks for. They are on-policy data as well: where the gate stays shut, one update learns from all of them.

Episodes count in the order of their beginning, and none before all that began earlier have ended: of those that end
first, the short ones would be too many.
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
"""The gate opens; more episodes of the policy as it is would tell; it stays shut, and the policy goes on learning."""
AT_ONCE = 2
"""Confirmations that may be under way at once."""
_FIRST_SHARES = (0.4, 0.3)
_FROZEN = "; the last {n}, all of them of the policy as it is now, have {value}"


class Gate:
    """The gate of a stage whose training episodes are those of the policy that is judged.

    Args:
        criterion: Of the stage.

    Attributes:
        attempt: Number of the last confirmation that has begun; 0 before the first.
    """

    def __init__(self, criterion: Criterion) -> None:
        self.attempt = 0
        self._criterion = criterion
        self._begun: dict[int, int] = {}
        self._changed = 0
        self._episodes: list[Episode] = []

    def begin(self, step: int) -> None:
        """Begin the next confirmation, with the episodes that begin at this step of the copies or later."""
        self.attempt += 1
        self._begun[self.attempt] = step

    def propose(self, recent: Sequence[Episode], begins: np.ndarray, step: int) -> None:
        """Begin a confirmation if recent training episodes promise more than those under way."""
        window = recent[-self._criterion.window :]
        promising = len(window) == self._criterion.window and self._criterion.holds(window)
        if len(self._begun) < AT_ONCE and promising:
            judged = [self._in_order(begun, begins) for begun in self._begun.values()]
            if not any(episodes and self._criterion.holds(episodes) for episodes in judged):
                self.begin(step)

    def end(self) -> None:
        """Break off what is under way: the policy that it was about is no more."""
        self._begun, self._episodes = {}, []

    def changed(self, step: int) -> None:
        """Take note that the policy has been changed before this step of the copies."""
        self._changed = step

    def note(self, finished: Sequence[Episode]) -> None:
        """Take the episodes that a rollout has finished."""
        first = min(self._begun.values(), default=None)
        kept = [e for e in (*self._episodes, *finished) if first is not None and e.began >= first]
        self._episodes = sorted(kept, key=_place)

    def judge(self, begins: np.ndarray, last: bool) -> list[tuple[int, Verdict, Answer]]:
        """Judge the episodes so far, by each confirmation under way; those that cannot be met any more end.

        Args:
            begins: At which step of its copy each episode under way began.
            last: Whether the policy as it is will not be changed any more.

        Returns:
            For each confirmation its number, its verdict, `met` only where the frozen policy bears the test out, and
            what follows from it.
        """
        found = [(number, *self._judge(number, begins, last)) for number in self._begun]
        for number, verdict, _ in found:
            if verdict.futile:
                del self._begun[number]
        return found

    def frozen(self, number: int, begins: np.ndarray) -> list[Episode]:
        """Return those episodes of a confirmation that the policy as it is has played from their beginning."""
        return self._frozen_ones(self._in_order(self._begun[number], begins))

    @property
    def under_way(self) -> bool:
        """Whether any confirmation is."""
        return bool(self._begun)

    def state_dict(self) -> dict[str, Any]:
        """Return the confirmations under way."""
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
            # The test's last episodes are those that the frozen policy has to play in any case; what is needed is
            # known once as many have been seen.
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
        """Return a confirmation's episodes in the order of their beginning, up to the first that has not ended."""
        unfinished = ((step, copy) for copy, step in enumerate(begins.tolist()) if step >= begun)
        first = min(unfinished, default=None)
        return [e for e in self._episodes if e.began >= begun and (first is None or _place(e) < first)]


def _place(episode: Episode) -> tuple[int, int]:
    """Return where an episode stands in the order of beginning."""
    return episode.began, episode.copy


def share(number: int, alpha: float = ALPHA) -> float:
    """Return the share of the error budget for a stage's confirmation with this number, from 1; all add up to it."""
    return spend(number, alpha, _FIRST_SHARES)
