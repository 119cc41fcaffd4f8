"""Fine-tuning stages, as frozen data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

from rlstages.errors import require, require_name
from rlstages.specs.agent import Agent
from rlstages.specs.algorithms.base import (
    CRITIC_FIT,
    DEMONSTRATION_LOSS,
    REFERENCE_KL,
    AlgorithmSpec,
    split_settings,
    stage_settings,
)
from rlstages.specs.algorithms.ppo import PPO
from rlstages.specs.criteria import Criterion, RewardThreshold
from rlstages.specs.environment import Environment
from rlstages.specs.plain import FrozenDict, settle
from rlstages.specs.schedules import Linear
from rlstages.specs.serialization import unusual
from rlstages.specs.settings import about, check_settings, documented, per_stage, setting
from rlstages.specs.stages.base import AGENT_SETTINGS, StageSpec, require_criterion, require_environment
from rlstages.specs.stages.sequence import earlier_environments
from rlstages.specs.unknown import refusing_unknown

UNLIMITED_STEPS = 10**12
"""Step limit of a stage that runs until it is stopped from outside, as in comparisons."""
UNREACHABLE = RewardThreshold(1e300)
GOING_ON = "going on"
UNPROTECTED: dict[str, Any] = {"critic_fit_steps": 0, "anchor_kl": 0.0, "demonstration_loss": 0.0}
"""Settings of a stage without protections of its updates."""


def _fold(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """Move the algorithm's settings that a stage was given by name into `settings`."""
    kept, settings = split_settings(cls, given, stages=True)
    stated = given.get("settings", {})
    if not settings or not isinstance(stated, Mapping):
        # What is no dictionary is for the stage's checks to refuse.
        return kept
    return {**kept, "settings": {**stated, **settings}}


@refusing_unknown(*AGENT_SETTINGS, fold=_fold, also=per_stage(PPO))
@documented
@dataclass(frozen=True)
class FineTuning(StageSpec):
    """Train the same policy further with reinforcement learning until a threshold is really reached.

    The protections of the hand-over are on by default, and each can be switched off. benchmarks/handover.py
    measures the
    effect of each (docs/handover.md). `FineTuning(..., learning_rate=1e-4)` is short for
    `FineTuning(..., settings={"learning_rate": 1e-4})`.
    """

    runner: ClassVar[str] = "rlstages.stages.fine_tuning.runner:FineTuningRunner"
    reinforces: ClassVar[bool] = True
    left_out_in: ClassVar[frozenset[str]] = frozenset({"no-curriculum", "scratch", "clone-only"})

    name: str = field(metadata=about("Name of the stage in all output; unique in its curriculum."))
    environment: Environment = field(metadata=about("Environment to train in."))
    _: KW_ONLY
    until: Criterion = field(metadata=about("Criterion that ends the stage."))
    max_steps: int = field(
        metadata=about(
            "Maximum number of environment steps, including those of confirmations. A confirmation that has begun "
            "before is completed.",
            least=1,
        )
    )
    settings: Mapping[str, Any] = setting(
        FrozenDict(), "Settings of the algorithm that differ from the agent's in this stage."
    )
    on_timeout: Literal["stop", "advance"] = setting(
        "stop",
        "What to do if `max_steps` are spent before `until` is met: `stop` the run, or `advance` to the next stage.",
    )
    rehearse: float = setting(
        0.0,
        "Share of the environments that run variants of earlier stages, so that these are not forgotten: each "
        "earlier variant in turn, the latest first. Their steps count. Their episodes are neither shown nor "
        "judged. 0 is off; any other value means at least one environment.",
        least=0.0,
        most=0.9,
    )
    on_collapse: Literal["go on", "return"] = setting(
        "go on",
        "What to do if the policy has lost the skill of the fine-tuning stage before: `go on`, or `return` to "
        "that stage with the current policy. To find out, the policy plays 48 episodes in the environment of "
        "that stage at the start, and tests take 5 % of the stage's steps.",
    )
    max_returns: int = setting(
        2, "Maximum number of times in a run that this stage may go back. After that, it goes on.", least=1
    )
    critic_fit_steps: int | None = setting(
        None,
        "Maximum number of environment steps after a hand-over in which only the critic learns, because an "
        "untrained critic sends the first updates in random directions (DPPO, arXiv:2409.00588). The fit ends "
        "as soon as the critic explains the returns of a rollout that it has not been trained on. `None` means "
        "0, and 8,192 after the guard has restored the clone.",
        least=0,
    )
    anchor_kl: float | None = setting(
        None,
        "Weight of the KL divergence (summed over action dimensions) from the reference policy, which is the "
        "last policy that was cloned or passed a gate (VPT, arXiv:2206.11795). 0 is off. `None` means 0. With "
        "PPO it means 0.1 after the guard has restored the clone, or after exploration of discrete actions was "
        "restored.",
        least=0.0,
    )
    anchor_steps: int = setting(
        40_000, "Environment steps over which the weight `anchor_kl` decays linearly to 0.", least=0
    )
    demonstration_loss: float = setting(
        0.0,
        "Weight of the mean negative log likelihood of demonstrated actions. Each gradient step adds it for a "
        "random batch, as large as its minibatch, of the last cloning stage's demonstrations (DAPG, "
        "arXiv:1709.10087; arXiv:1709.10089). 0 is off.",
        least=0.0,
    )
    demonstration_steps: int = setting(
        40_000, "Environment steps over which the weight `demonstration_loss` decays linearly to 0.", least=0
    )
    exploration: float | None = setting(
        None,
        "Exploration at the start of the stage; `None` keeps that of the stage before. For continuous actions, "
        "the log standard deviation of actions scaled to [-1, 1]. For all others, a share from 0 to 1: each "
        "state's distribution is mixed with this share of the uniform one.",
        least=-10.0,
        most=2.0,
    )
    explore_again: bool = setting(
        True,
        "Restore exploration, at most once, if a policy that is certain of its actions hardly succeeds, at the "
        "start or without progress after 20,000 steps. Each state's distribution is mixed with 0.6 of the "
        "uniform one, and the result is the new reference policy. For continuous actions, the standard "
        "deviation is set to half an action's range instead, and there is no reference policy.",
    )
    guard_steps: int = setting(
        8_192,
        "Environment steps of updates after which the hand-over guard compares the policy with the clone. If "
        "the training episodes are worse than the clone's, the policy plays the clone's `evaluation_episodes`. "
        "After a significant drop the clone is restored, and training continues with half the learning rate "
        "and clip range and twice the weight of the KL divergence. 0 is off.",
        least=0,
    )
    guard_rollbacks: int = setting(
        5, "Maximum number of times that the guard restores the clone. With 0, it only reports.", least=0
    )
    evaluation_episodes: int = setting(
        48,
        "Number of episodes that score the policy before the stage, and after it if the threshold was missed. "
        "0 plays none, and switches the guard off.",
        least=0,
    )

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or contradict each other."""
        settle(self)
        require_name("FineTuning", self.name)
        where = f"stage {self.name!r}"
        require_environment(where, self.environment)
        require_criterion(where, self.until)
        check_settings(where, self)
        object.__setattr__(self, "settings", stage_settings(where, self.settings))

    def __str__(self) -> str:
        rehearsing = f", {self.rehearse:.0%} of the copies in earlier variants" if self.rehearse else ""
        if self.max_steps >= UNLIMITED_STEPS:
            return f"train in {self.environment} until the comparison's steps are spent{rehearsing}"
        limit = f"at most {self.max_steps:,} steps"
        settings = unusual(self, "rehearse", given="settings")
        return f"train in {self.environment} until {self.until}, {limit}{rehearsing}{settings}"

    def rehearsal_copies(self, n_envs: int) -> int:
        """Return how many of `n_envs` environments rehearse."""
        return max(1, math.floor(self.rehearse * n_envs + 0.5)) if self.rehearse else 0

    def anchor_weight(self, algorithm: AlgorithmSpec, steps: int, needed: bool = False) -> float:
        """Return the weight of the KL term.

        Args:
            algorithm: Algorithm of the agent.
            steps: Environment steps of the stage since the updates began.
            needed: Whether there is evidence that the term is needed.
        """
        start = self.anchor_kl if self.anchor_kl is not None else algorithm.kl_when_needed if needed else 0.0
        return _faded(start, steps, self.anchor_steps)

    def demonstration_weight(self, steps: int) -> float:
        """Return the weight of the demonstration loss after so many steps of the stage."""
        return _faded(self.demonstration_loss, steps, self.demonstration_steps)

    @property
    def demonstrations_needed(self) -> str:
        """The setting that needs demonstrations of an earlier stage, as it is written; empty if there is none."""
        return f"demonstration_loss={self.demonstration_loss:g}" if self.demonstration_weight(0) > 0 else ""

    @property
    def step_limit(self) -> int:
        """Maximum number of environment steps."""
        return self.max_steps

    @property
    def goes_on_when_missed(self) -> bool:
        """Whether the run continues with the next stage if this one misses its threshold."""
        return self.on_timeout == "advance"

    def in_force(self, agent: Agent) -> dict[str, Any]:
        """Return the settings of the agent in this stage, and the weight of the KL term."""
        return {**agent.settings(self.settings), "anchor_kl": self.anchor_weight(agent.algorithm, 0)}

    def check_place(self, before: Sequence[StageSpec], agent: Agent) -> None:
        """Refuse settings that do not fit the agent or the stages before, and too small step limits.

        A stage needs ten rollouts, and its critic fit after a hand-over. With less, updates could not affect its score.
        """
        where = f"stage {self.name!r}"
        algorithm, rollout = agent.algorithm.with_settings(where, self.settings), agent.rollout_steps
        algorithm.check(where, agent.n_envs)
        self._check_support(algorithm)
        last = before[-1] if before else None
        critic_fit = (self.critic_fit_steps or 0) if last is not None and not last.reinforces else 0
        least = critic_fit + 10 * rollout
        sentence = (
            f"{where}: max_steps is {self.max_steps:,}, but ten rollouts of {rollout:,} steps and a critic fit of "
            f"{critic_fit:,} take {least:,}; raise max_steps, or lower critic_fit_steps, n_envs or n_steps."
        )
        require(self.max_steps >= least, sentence, "setting-conflict", where, "max_steps")
        sentence = (
            f"{where}: on_collapse='return', but no stage that trains by reward comes right before it; leave it out."
        )
        require(
            self.on_collapse == "go on" or (last is not None and last.reinforces),
            sentence,
            "stage-order",
            where,
            "on_collapse",
        )
        if self.rehearse:
            self._check_rehearsal(before, agent.n_envs)

    def _check_support(self, algorithm: AlgorithmSpec) -> None:
        asked = {
            CRITIC_FIT: ("critic_fit_steps", self.critic_fit_steps),
            REFERENCE_KL: ("anchor_kl", self.anchor_kl),
            DEMONSTRATION_LOSS: ("demonstration_loss", self.demonstration_loss),
        }
        for protection, (name, value) in asked.items():
            sentence = (
                f"stage {self.name!r}: {name} is {value}, but {algorithm.name} has no {protection}; leave it out."
            )
            require(
                not value or protection in algorithm.supports,
                sentence,
                "setting-conflict",
                f"stage {self.name!r}",
                name,
            )

    def _check_rehearsal(self, before: Sequence[StageSpec], n_envs: int) -> None:
        where = f"stage {self.name!r}: rehearse={self.rehearse:g}"
        sentence = f"{where}, but no stage before it has another environment; leave rehearse out."
        require(
            bool(earlier_environments(before, self.environment)),
            sentence,
            "stage-order",
            f"stage {self.name!r}",
            "rehearse",
        )
        sentence = (
            f"{where} of {n_envs} cop{'y' if n_envs == 1 else 'ies'} leaves none for the stage itself; lower it, or "
            "raise Agent(n_envs=...)."
        )
        require(
            self.rehearsal_copies(n_envs) < n_envs, sentence, "setting-conflict", f"stage {self.name!r}", "rehearse"
        )

    def trained_in(self, before: Sequence[StageSpec]) -> tuple[Environment, ...]:
        """Return the stage's environment, and those that it rehearses."""
        rehearsed = earlier_environments(before, self.environment) if self.rehearse else ()
        return (self.environment, *rehearsed)

    # --- in the arms of a comparison -------------------------------------------------------------------------------

    def possible_after(self, before: Sequence[StageSpec]) -> FineTuning:
        """Return the stage without settings that need earlier stages which an arm leaves out."""
        follows = bool(before) and before[-1].reinforces
        shown = any(stage.demonstrates for stage in before)
        return replace(
            self,
            rehearse=self.rehearse if earlier_environments(before, self.environment) else 0.0,
            on_collapse=self.on_collapse if follows else "go on",
            demonstration_loss=self.demonstration_loss if shown or not self.demonstrations_needed else 0.0,
        )

    def patient(self) -> FineTuning:
        """Return the stage with the setting that the run continues if its threshold is missed."""
        return replace(self, on_timeout="advance")

    def unprotected(self, before: Sequence[StageSpec], agent: Agent) -> FineTuning:
        """Return the stage without protections of the hand-over.

        The first stage after cloning then starts with the exploration noise of a new policy, `Agent.log_std_init`,
        as in
        a script that puts the clone's network into a new PPO.
        """
        handed_over = bool(before) and not before[-1].reinforces
        noise = agent.log_std_init if handed_over else self.exploration
        guards: dict[str, Any] = {"explore_again": False, "guard_steps": 0, "on_collapse": "go on", "rehearse": 0.0}
        return replace(self, exploration=noise, **UNPROTECTED, **guards)

    def endless(self, before: Sequence[StageSpec], agent: Agent) -> FineTuning:
        """Return a stage that continues the training of this one without end.

        It has no hand-over, and so no critic fit, no KL term and no demonstration loss. Schedules stay at their end
        values, or, if those are 0 (which is not allowed), at the value of the stage's last update.
        """
        rollout = agent.rollout_steps
        progress = (self.max_steps - 1) // rollout * rollout / self.max_steps
        settings: dict[str, Any] = {
            # A schedule that is always 0 stays 0.
            name: value.end or value.at(progress) or value
            for name, value in agent.settings(self.settings).items()
            if isinstance(value, Linear)
        }
        return replace(
            self,
            name=f"{GOING_ON} in {self.name}"[:80].strip(),
            until=self.until & UNREACHABLE,
            max_steps=UNLIMITED_STEPS,
            rehearse=next(stage.rehearse for stage in reversed(before) if isinstance(stage, FineTuning)),
            on_collapse="go on",
            exploration=None,
            evaluation_episodes=0,
            settings={**self.settings, **settings},
            **UNPROTECTED,
        )


def _faded(start: float, steps: int, length: int) -> float:
    return start * max(0.0, 1.0 - steps / length) if length else 0.0
