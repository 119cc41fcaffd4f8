"""An event's numbers under the names that W&B and TensorBoard show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rlstages.events import (
    DemonstrationsReady,
    EpochFinished,
    Evaluated,
    Event,
    ExplorationMeasured,
    HandoverChecked,
    HandoverRecovered,
    Judged,
    LookedBack,
    Retained,
    RetentionMeasured,
    RolloutFinished,
    StageCollapsed,
    StageFinished,
)
from rlstages.specs.criteria.episodes import Score

CLONE_AXIS = "clone/epoch"
STEP_AXIS = "global_step"
STEP_PREFIXES = ("rollout", "train", "eval", "stage", "exploration", "handover", "retention", "held_out")
SUMMARIES = {
    "rollout/return": "max,last",
    "rollout/success": "max,last",
    "clone/accuracy": "max,last",
    "clone/held_out_loss": "min,last",
}
"""What W&B's summary keeps of a metric; of all others the last value, which for a score is that of the last policy."""


def metrics(event: Event) -> dict[str, float]:
    """Return the finite numbers of an event by metric name; empty for an event that has none.

    `clone/*` belongs on an axis of its own (epochs, over all cloning stages), everything else on `global_step`.
    Neither axis is among the numbers. Of a confirmation or a look back, which are played in waves, only the last wave
    has numbers: they are of all its episodes.
    """
    found = {name: value for name, value in _numbers(event).items() if value is not None and math.isfinite(value)}
    return {name: float(value) for name, value in found.items()}


def _numbers(event: Event) -> Mapping[str, float | None]:
    payload = event.payload
    if isinstance(payload, DemonstrationsReady):
        score = payload.score
        return {"eval/demonstrations_return": score.mean_return, "eval/demonstrations_success": score.success}
    if isinstance(payload, EpochFinished):
        return _prefixed("clone", payload.metrics)
    if isinstance(payload, Evaluated):
        return _prefixed("eval", _score(payload.score))
    if isinstance(payload, RolloutFinished):
        return {**_rollout(payload), **_prefixed("train", payload.train)}
    if isinstance(payload, Judged):
        if not (payload.verdict.met or payload.verdict.futile):
            return {}
        return {
            "eval/confirm_value": payload.verdict.value,
            "eval/confirm_bound": payload.verdict.bound,
            "eval/confirm_threshold": payload.verdict.threshold,
            "eval/confirm_attempt": payload.attempt,
            "eval/confirm_episodes": payload.verdict.episodes,
            "stage/steps": payload.stage_steps,
        }
    if isinstance(payload, HandoverChecked):
        return {
            **_named("handover/clone", payload.before),
            **_prefixed("handover", _outcome(payload.after)),
            "handover/rollbacks": payload.attempt - 1 + payload.rolled_back,
        }
    if isinstance(payload, ExplorationMeasured):
        measured = {"entropy": payload.entropy, "entropy_low": payload.entropy_low, "std": payload.std}
        return {**_prefixed("exploration", measured), "exploration/given_back": float(bool(payload.reason))}
    if isinstance(payload, HandoverRecovered):
        return {"handover/steps_to_recover": payload.steps}
    if isinstance(payload, RetentionMeasured):
        cost = {"retention/steps": payload.steps, "retention/seconds": payload.seconds}
        return {**_retained("retention", payload.scores), **_retained("held_out", payload.held_out), **cost}
    if isinstance(payload, LookedBack):
        if not payload.over:
            return {}
        return {
            "eval/look_back_value": payload.decline.value,
            "eval/look_back_bound": payload.decline.bound,
            "eval/look_back_level": payload.decline.level,
            "stage/steps": payload.stage_steps,
        }
    if isinstance(payload, StageFinished):
        return {
            "stage/steps": payload.stage_steps,
            "stage/seconds": payload.seconds,
            "stage/threshold": payload.verdict.threshold if payload.verdict else None,
            **_named("stage/before", payload.before),
            **_named("stage/after", payload.after),
        }
    if isinstance(payload, StageCollapsed):
        return {"stage/steps": payload.stage_steps, "stage/seconds": payload.seconds}
    return {}


def _rollout(payload: RolloutFinished) -> dict[str, float | None]:
    return {
        "rollout/return": payload.mean_return,
        "rollout/success": payload.success,
        "rollout/length": payload.mean_length,
        "rollout/value": payload.value,
        "rollout/threshold": payload.threshold,
        "rollout/episodes": payload.episodes,
        "rollout/steps_per_second": payload.steps_per_second,
        "stage/steps": payload.stage_steps,
    }


def _score(score: Score) -> dict[str, float | None]:
    return {
        "return": score.mean_return,
        "return_low": score.return_low,
        "return_high": score.return_high,
        "success": score.success,
        "success_low": score.success_low,
        "success_high": score.success_high,
        "episodes": score.episodes,
    }


def _outcome(score: Score) -> dict[str, float | None]:
    return {"return": score.mean_return, "success": score.success}


def _named(prefix: str, score: Score | None) -> dict[str, float | None]:
    return {} if score is None else {f"{prefix}_{name}": value for name, value in _outcome(score).items()}


def _retained(prefix: str, cells: Sequence[Retained]) -> dict[str, float | None]:
    """Return the scores of a policy by environment; a slash would be a part of the metric's path."""
    found: dict[str, float | None] = {}
    for cell in cells:
        if cell.score is not None:
            values = {**_outcome(cell.score), "normalized": cell.normalized}
            found |= _prefixed(f"{prefix}/{cell.environment.replace('/', '-')}", values)
    return found


def _prefixed(prefix: str, values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
