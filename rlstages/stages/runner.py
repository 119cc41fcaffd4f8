"""What the trainer asks of a stage while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

import gymnasium as gym

from rlstages.demonstrations.episodes import Demonstrations
from rlstages.errors import Fault, InputError, in_short, reason_of, require
from rlstages.play.smoke_check import Trial
from rlstages.specs.agent import Agent
from rlstages.specs.criteria import Criterion, Verdict
from rlstages.specs.criteria.decline import Decline
from rlstages.specs.criteria.episodes import Score
from rlstages.specs.serialization import require_types
from rlstages.specs.stages.base import StageSpec

Ending = Literal["reached", "completed", "missed", "collapsed"]
METHODS = ("step", "state_dict", "load_state_dict", "close")


@dataclass(frozen=True)
class Result:
    """How a stage ended.

    Attributes:
        outcome: `"reached"` (its threshold), `"completed"` (it had none), `"missed"`, or `"collapsed"`.
        reason: One sentence.
        before: Score of the policy that entered, or `None`.
        after: Score of the policy that left, or `None`.
        verdict: Of its criterion, or `None`.
        parent: SHA-256 of the demonstrations it learned from, or `None`.
        decline: What was lost of the stage before, if the stage collapsed.
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
    """What a stage is checked against before step 0.

    Attributes:
        observation_space: As the policy sees it.
        action_space: Of the environments, in their own units.
        agent: The agent.
        gate: What its policy is asked for next, or `None`.
        tried: Episodes of random actions in its environment.
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
    """What a check before step 0 has found.

    Attributes:
        doubts: Sentences on what will work, but not as well as a person may expect.
        shown: Episodes of whoever shows, if any do.
    """

    doubts: Sequence[str] = ()
    shown: Demonstrations | None = None


class StageRunner(Protocol):
    """A stage while it runs. Between two steps nothing is half-done: there the trainer saves, stops and resumes.

    It is made with a `StageContext`. What its class has as `check(stage, setting)` is called before step 0, returns
    a `CheckResult`, and raises an `InputError` for what cannot work.

    Attributes:
        stage_steps: Environment steps that it took so far.
        result: How it ended, or `None` while it is under way.
    """

    stage_steps: int
    result: Result | None

    def step(self) -> None:
        """Do one piece: an epoch, a rollout and its update, or a wave of evaluation episodes."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `step` depends on besides the learner, as arrays and JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def close(self) -> None:
        """Let go of environments."""


def runner_of(stage: StageSpec) -> Any:
    """Return the class that carries out a stage.

    Raises:
        InputError: If there is none by the name that the stage's spec gives, or it lacks a method.
    """
    module, _, name = stage.runner.partition(":")
    where = f"stage {stage.name!r}: its runner {stage.runner}"
    try:
        found = getattr(import_module(module), name)
    except Exception as error:
        raise InputError(
            f"{where} cannot be imported ({reason_of(error)}).", "import-failed", f"stage {stage.name!r}", "runner"
        ) from error
    lacks = [method for method in METHODS if not callable(getattr(found, method, None))]
    sentence = f"{where} has no method {' and no '.join(lacks)}, which every runner needs."
    require(not lacks, sentence, "kind-invalid", f"stage {stage.name!r}", "runner")
    return found


def require_counters(stage: StageSpec, runner: StageRunner) -> None:
    """Refuse a runner, as it is made, that does not say how far it is.

    Raises:
        Fault: If it does not.
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
    """Refuse what a runner has as its result, where it is none.

    Args:
        stage: Whose runner.
        result: What it has.
        follows: Whether a stage comes before it, which a collapse goes back to.

    Raises:
        Fault: Saying what is wrong.
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
    """Return what a runner goes on from.

    Raises:
        Fault: If that is no dictionary.
    """
    state: object = runner.state_dict()
    if not isinstance(state, Mapping):
        sentence = (
            f"Stage {stage.name!r}: state_dict of its runner {stage.runner} returns {in_short(state)}; let it return a "
            "dictionary of arrays and JSON values, be it an empty one."
        )
        raise Fault(sentence, "runner-invalid", f"stage {stage.name!r}", "state_dict")
    return state
