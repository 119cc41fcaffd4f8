"""The latest episodes of a stage: their scores, and why they have not opened the gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlstages.events import Emit, RolloutFinished, Warned
from rlstages.play.doubts import STRICT_LEVEL, doubts_about_reward
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import Episode, episodes_of, rows_of, score, shown
from rlstages.specs.stages.fine_tuning import FineTuning

COMPARED_AFTER = (100, 200, 400)
"""Numbers of episodes after which the returns of solved and unsolved episodes are compared."""


class Recent:
    """A window of the latest episodes of a stage, and its first episodes.

    Args:
        stage: Spec of the stage, whose criterion gives the length of the window.
        emit: Function that takes events.

    Attributes:
        episodes: Episodes in the window, oldest first.
    """

    def __init__(self, stage: FineTuning, emit: Emit) -> None:
        self.episodes: list[Episode] = []
        self._stage, self._emit = stage, emit
        self._first: list[Episode] = []

    def note(self, finished: Sequence[Episode], counts: bool) -> None:
        """Take the episodes of a rollout.

        Args:
            finished: Episodes in the order in which they ended.
            counts: Whether they belong into the window, because the policy is judged by training episodes.
        """
        before = len(self._first)
        self._first += finished[: COMPARED_AFTER[-1] - before]
        # Warn once if solved episodes have lower returns than unsolved ones.
        if any(before < number <= len(self._first) for number in COMPARED_AFTER):
            for sentence in doubts_about_reward(self._stage.environment, self._first, STRICT_LEVEL):
                self._emit(Warned(sentence))
        if counts:
            self.episodes = (self.episodes + list(finished))[-self._stage.until.window :]

    def clear(self) -> None:
        """Empty the window, because its episodes were used by a test or belong to a policy that no longer exists."""
        self.episodes = []

    def report(
        self, phase: str, stage_steps: int, metrics: dict[str, float], steps_per_second: float, waiting_for: str = ""
    ) -> None:
        """Emit the event for a rollout.

        Args:
            phase: Phase of the stage in which it was played.
            stage_steps: Environment steps of the stage so far, including those of the rollout.
            metrics: Metrics of the update.
            steps_per_second: Speed of the rollout and its update.
            waiting_for: Reason why the gate has not opened, if it is another than these episodes.
        """
        value, threshold = self._stage.until.summary(self.episodes)
        window = score(self.episodes) if self.episodes else None
        self._emit(
            RolloutFinished(
                phase=phase,
                stage_steps=stage_steps,
                episodes=len(self.episodes),
                mean_return=None if window is None else window.mean_return,
                success=None if window is None else window.success,
                mean_length=None if window is None else window.steps / window.episodes,
                value=None if math.isnan(value) else value,
                threshold=threshold,
                train=metrics,
                steps_per_second=steps_per_second,
                waiting_for=waiting_for or self._waiting(),
            )
        )

    def shortfall(self, refused: Verdict | None) -> str:
        """Return what was missing when the steps were spent, as half a sentence.

        Args:
            refused: Verdict of the last confirmation that could no longer be met, or `None`.
        """
        number, until = len(self.episodes), self._stage.until
        if number < until.window:
            if refused is not None:
                return f"the last confirmation was given up, with {refused.reason}"
            return f"{number} of {until.window} fresh episodes were seen"
        value, threshold = until.summary(self.episodes)
        unconfirmed = "" if value < threshold else ", and no confirmation bore that out"
        return f"the last {number} episodes have {shown(until.measure, value)}{unconfirmed}"

    def state_dict(self) -> dict[str, Any]:
        """Return the episodes."""
        return {"recent": rows_of(self.episodes), "first_episodes": rows_of(self._first)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.episodes = episodes_of(state["recent"])
        self._first = episodes_of(state.get("first_episodes", ()))

    def _waiting(self) -> str:
        """Return the reason why the gate has not opened."""
        number, until = len(self.episodes), self._stage.until
        if number < until.window:
            return f"{number} of {until.window} fresh episodes seen"
        value, threshold = until.summary(self.episodes)
        relation = "is below" if value < threshold else "has reached"
        last, wanted = (shown(until.measure, each) for each in (value, threshold))
        return f"the last {number} episodes' {last} {relation} {wanted}"
