"""The protocol of runners, and checks of what runners return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import gymnasium as gym

from rlstages.demonstrations.episodes import Demonstrations
from rlstages.errors import Fault, InputError, in_short, require
from rlstages.play.smoke_check import Trial
from rlstages.specs.agent import Agent
from rlstages.specs.criteria import Criterion, Verdict
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.references import class_at
from rlstages.specs.serialization import require_types
from rlstages.specs.stages.base import StageSpec

Ending = Literal["reached", "completed", "missed", "collapsed"]
METHODS = ("step", "state_dict", "load_state_dict", "close")


@dataclass(frozen=True)
class Result:
    """How a stage ended.

    Attributes:
        outcome: `"reached"` (its threshold), `"completed"` (without a threshold), `"missed"`, or `"collapsed"`.
        reason: Reason in one sentence.
        before: Score of the policy before the stage, or `None`.
        after: Score of the policy after the stage, or `None`.
        verdict: Verdict of the stage's criterion, or `None`.
        parent: SHA-256 of the demonstrations that it learned from, or `None`.
        decline: Loss of the skill of the stage before, if the stage collapsed.
    """

    outcome: Ending
    reason: str
    before: Score | None
    after: Score | None
    verdict: Verdict | None
    parent: str | None = None
    decline: Decline | None = None


@dataclass(frozen=True)
class Setting:
    """The setting in which a stage is checked before step 0.

    Attributes:
        observation_space: Observation space of the policy.
        action_space: Action space of the environments, in their own units.
        agent: Agent of the curriculum.
        gate: Next criterion that the policy must meet, or `None`.
        tried: Episodes of random actions in the stage's environment.
        trust_pickle: Whether an expert's model zip may be loaded.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    agent: Agent
    gate: Criterion | None
    tried: Trial
    trust_pickle: bool


@dataclass(frozen=True)
class CheckResult:
    """The result of a check before step 0.

    Attributes:
        doubts: Warnings for the user: sentences on what will work, but not well.
        shown: Episodes of the expert, if the stage has one.
    """

    doubts: Sequence[str] = ()
    shown: Demonstrations | None = None


class StageRunner(Protocol):
    """A stage while it runs. The trainer saves, stops and resumes between two steps, so no step leaves work half-done.

    The constructor takes a `StageContext`. The class may have a class method `check(stage, setting)`. It is called
    before
    step 0, returns a `CheckResult`, and raises `InputError` if the stage cannot work.

    Attributes:
        stage_steps: Environment steps of the stage so far.
        result: Result of the stage, or `None` while it is running.
    """

    stage_steps: int
    result: Result | None

    def step(self) -> None:
        """Do one piece of work: an epoch, a rollout and its update, or a wave of evaluation episodes."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything besides the learner that `step` depends on, as arrays and JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def close(self) -> None:
        """Close the environments."""


def runner_of(stage: StageSpec) -> Any:
    """Return the runner's class for a stage.

    Raises:
        InputError: If the class that the stage's spec names does not exist or lacks a method.
    """
    where = f"stage {stage.name!r}"
    found = class_at(where, "runner", stage.runner)
    lacks = [method for method in METHODS if not callable(getattr(found, method, None))]
    sentence = f"{where}: its runner {stage.runner} has no method {' and no '.join(lacks)}, which every runner needs."
    require(not lacks, sentence, "kind-invalid", where, "runner")
    return found


def require_counters(stage: StageSpec, runner: StageRunner) -> None:
    """Refuse a new runner without the attributes `stage_steps` and `result`.

    Raises:
        Fault: If one of them is missing.
    """
    given = getattr(runner, "stage_steps", None)
    if type(given) is not int or not hasattr(runner, "result"):
        raise Fault(
            f"Stage {stage.name!r}: its runner {stage.runner} is made without "
            f"{'stage_steps' if type(given) is not int else 'result'}; set stage_steps = 0 and result = None there.",
            "runner-invalid",
            f"stage {stage.name!r}",
            "stage_steps" if type(given) is not int else "result",
        )


def require_result(stage: StageSpec, result: Result, follows: bool) -> None:
    """Refuse an invalid result of a runner.

    Args:
        stage: Stage of the runner.
        result: Result of the runner.
        follows: Whether there is a stage before it, to which the run can go back.

    Raises:
        Fault: If the result is invalid; the message says why.
    """
    where = f"Stage {stage.name!r}: the result of its runner {stage.runner}"
    if not isinstance(result, Result):
        sentence = f"{where} is {in_short(result)}; it is None while the stage is under way, and then a Result."
        raise Fault(sentence, "runner-invalid", f"stage {stage.name!r}", "result")
    try:
        require_types(result)
    except InputError as error:
        raise Fault(f"{where} does not fit: {error}", "runner-invalid", f"stage {stage.name!r}", "result") from error
    collapsed = result.outcome == "collapsed"
    if collapsed != (result.decline is not None) or (collapsed and not follows):
        sentence = f"{where} does not fit: 'collapsed', and nothing else, has a decline, and follows another stage."
        raise Fault(sentence, "runner-invalid", f"stage {stage.name!r}", "result")


def state_of_runner(stage: StageSpec, runner: StageRunner) -> Mapping[str, Any]:
    """Return the state of a runner.

    Raises:
        Fault: If the state is not a dictionary.
    """
    state: object = runner.state_dict()
    if not isinstance(state, Mapping):
        sentence = (
            f"Stage {stage.name!r}: state_dict of its runner {stage.runner} returns {in_short(state)}; let it return a "
            "dictionary of arrays and JSON values, be it an empty one."
        )
        raise Fault(sentence, "runner-invalid", f"stage {stage.name!r}", "state_dict")
    return state
