"""Events of a policy's learning and scores within a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rlstages.events.payload import LeftFile, Payload, StageView, named, prefixed
from rlstages.events.text import count, number, span
from rlstages.specs.criteria import Verdict
from rlstages.specs.criteria.episodes import Score


@dataclass(frozen=True)
class DemonstrationsReady(Payload):
    """The event that demonstrations were recorded or loaded, and filtered.

    Attributes:
        source: Description of the expert or the file.
        file: Path of the file, relative to the run directory.
        digest: SHA-256 of that file.
        score: Score of the demonstrated episodes.
        held_out_episodes: Number of validation episodes among them.
        recorded_steps: Environment steps of all episodes that were shown, those included that were filtered out; `None`
            in logs of before this was kept.
    """

    source: str
    file: str
    digest: str
    score: Score
    held_out_episodes: int
    recorded_steps: int | None = None

    @property
    def cost(self) -> int:
        """Number of environment steps of the demonstrations, as far as it is known."""
        return self.score.steps if self.recorded_steps is None else self.recorded_steps

    def scalars(self) -> Mapping[str, float | None]:
        """Return the scores of the demonstrations."""
        return prefixed("eval", named("demonstrations", self.score))

    def line(self, stage: StageView) -> str:
        """Return the number of demonstrated episodes, and their score."""
        measured = f"{stage.measure_of(self.score)} {number(stage.measured(self.score))}"
        held = f", {self.held_out_episodes} held out" if self.held_out_episodes else ""
        return f"{self.score.episodes} episodes of {self.source}: {measured}{held}"

    def leaves(self) -> LeftFile:
        """Return the file of the demonstrations."""
        about = {"source": self.source, "score": self.score, "held_out_episodes": self.held_out_episodes}
        return LeftFile("demonstrations", self.file, self.digest, None, about)


@dataclass(frozen=True)
class EpochFinished(Payload):
    """The event that one pass over the demonstrations has finished.

    Attributes:
        epoch: Number of the epoch in the stage, from 1.
        metrics: `loss`, and where episodes are held out `held_out_loss` (negative log likelihood, nats), and
            `accuracy` (discrete actions) or `error` (continuous actions: root mean square, as a share of half the
            range).
        best: Whether the held-out loss is the lowest so far.
    """

    axis: ClassVar[str] = "clone/epoch"

    epoch: int
    metrics: Mapping[str, float]
    best: bool

    def scalars(self) -> Mapping[str, float | None]:
        """Return its metrics."""
        return prefixed("clone", self.metrics)

    def line(self, stage: StageView) -> str:
        """Return the number of the epoch, and its metrics."""
        return f"epoch {self.epoch} of {stage.max_epochs}: {self.fit()}"

    def fit(self) -> str:
        """Return its metrics in words."""
        shown = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in self.metrics.items())
        return f"{shown} (best)" if self.best and "held_out_loss" in self.metrics else shown

    def often(self, stage: StageView) -> int:
        """Return 0 for the last epoch."""
        return 0 if self.epoch == stage.max_epochs else 1

    def drawn(self) -> float | None:
        """Return the validation loss, or else the training loss."""
        return self.metrics.get("held_out_loss", self.metrics.get("loss"))


@dataclass(frozen=True)
class Evaluated(Payload):
    """The event that the frozen policy was scored on separate episodes.

    Attributes:
        purpose: `"before"` or `"after"` a stage.
        score: Outcome.
    """

    purpose: str
    score: Score

    def scalars(self) -> Mapping[str, float | None]:
        """Return the score with its intervals."""
        score = self.score
        return {
            "eval/return": score.mean_return,
            "eval/return_low": score.return_low,
            "eval/return_high": score.return_high,
            "eval/success": score.success,
            "eval/success_low": score.success_low,
            "eval/success_high": score.success_high,
            "eval/episodes": score.episodes,
        }

    def line(self, stage: StageView) -> str:
        """Return the score."""
        return f"{self.purpose}: {self.score}"


@dataclass(frozen=True)
class RolloutFinished(Payload):
    """The event that one rollout and its update have finished.

    Attributes:
        phase: `"critic fit"` or `"training"`.
        stage_steps: Environment steps of this stage so far.
        episodes: Number of fresh episodes in the criterion's window.
        mean_return: Mean return of the window, or `None` while it is empty.
        success: Success of the window; `None` while it is empty or without a definition of success.
        mean_length: Mean episode length of the window, in steps.
        value: Mean of the window, in the criterion's measure.
        threshold: Threshold of the criterion.
        train: Losses and diagnostics of the update, by name.
        steps_per_second: Speed of this rollout and its update.
        waiting_for: Reason why the gate has not opened, in one sentence.
    """

    phase: str
    stage_steps: int
    episodes: int
    mean_return: float | None
    success: float | None
    mean_length: float | None
    value: float | None
    threshold: float
    train: Mapping[str, float]
    steps_per_second: float
    waiting_for: str

    def scalars(self) -> Mapping[str, float | None]:
        """Return the scores of the window, and the metrics of the update."""
        return {
            "rollout/return": self.mean_return,
            "rollout/success": self.success,
            "rollout/length": self.mean_length,
            "rollout/value": self.value,
            "rollout/threshold": self.threshold,
            "rollout/episodes": self.episodes,
            "rollout/steps_per_second": self.steps_per_second,
            "stage/steps": self.stage_steps,
            **prefixed("train", self.train),
        }

    def line(self, stage: StageView) -> str:
        """Return the progress of the stage, the score, and what the gate waits for."""
        limit = f" of {count(stage.max_steps)}" if stage.max_steps else ""
        measured = f"{stage.measure} {number(self.value)}, wanted {number(self.threshold)}"
        left = "" if stage.max_steps is None else self.time_for(stage.max_steps - self.stage_steps)
        speed = f"{count(self.steps_per_second)} steps/s"
        line = f"{self.phase}: {count(self.stage_steps)}{limit} steps, {measured}, {speed}{left}"
        return f"{line}; {self.waiting_for}" if self.waiting_for else line

    def time_for(self, steps: int) -> str:
        """Return the time for so many steps at this speed, with a comma before it; empty without a speed."""
        return f", at most {span(max(0, steps) / self.steps_per_second)} left" if self.steps_per_second > 0 else ""

    def often(self, stage: StageView) -> int:
        """Return the number of rollouts per console line."""
        return 10

    def drawn(self) -> float | None:
        """Return the mean of the window, in the criterion's measure."""
        return self.value


@dataclass(frozen=True)
class Judged(Payload):
    """The event that fresh episodes of the frozen policy were judged.

    Attributes:
        attempt: Number of this confirmation in the stage, from 1.
        stage_steps: Environment steps of this stage so far, those of confirmations included.
        verdict: Verdict of the criterion.
    """

    attempt: int
    stage_steps: int
    verdict: Verdict

    @property
    def decided(self) -> bool:
        """Whether it is the last wave of its confirmation."""
        return self.verdict.met or self.verdict.futile

    def scalars(self) -> Mapping[str, float | None]:
        """Return the verdict on all waves, once it is decided."""
        if not self.decided:
            return {}
        return {
            "eval/confirm_value": self.verdict.value,
            "eval/confirm_bound": self.verdict.bound,
            "eval/confirm_threshold": self.verdict.threshold,
            "eval/confirm_attempt": self.attempt,
            "eval/confirm_episodes": self.verdict.episodes,
            "stage/steps": self.stage_steps,
        }

    def line(self, stage: StageView) -> str:
        """Return the verdict of the criterion."""
        return f"confirmation {self.attempt}: {self.verdict.reason}"

    def often(self, stage: StageView) -> int:
        """Return 0 for the last wave of a confirmation."""
        return 0 if self.decided else 1
