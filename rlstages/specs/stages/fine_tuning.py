"""The stage that trains with reinforcement learning, as frozen data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

from rlstages.errors import require, require_choice, require_int, require_name, require_number
from rlstages.specs.agent import Agent, Hyperparameters, Linear, refuse_ppo_only
from rlstages.specs.criteria import Criterion, RewardThreshold
from rlstages.specs.environment import Environment
from rlstages.specs.plain import settle
from rlstages.specs.serialization import unusual
from rlstages.specs.stages.base import AGENT_SETTINGS, StageSpec, require_criterion, require_environment
from rlstages.specs.stages.sequence import earlier_environments
from rlstages.specs.unknown import refusing_unknown

UNLIMITED_STEPS = 10**12
"""The limit of a stage that goes on until whoever watches the run has seen enough, as those of comparisons do."""
UNREACHABLE = RewardThreshold(1e300)
GOING_ON = "going on"
UNPROTECTED: dict[str, Any] = {"critic_fit_steps": 0, "anchor_kl": 0.0, "demonstration_loss": 0.0}
"""Settings of a stage whose updates nothing holds back."""


@refusing_unknown(*AGENT_SETTINGS)
@dataclass(frozen=True)
class FineTuning(Hyperparameters, StageSpec):
    """Train the same policy further with reinforcement learning until a threshold is really reached.

    The protections of the hand-over are on by default and can be switched off one by one. What each of them is worth is
    measured by benchmarks/handover.py (docs/handover.md).

    Args:
        name: Shown everywhere; unique in its curriculum.
        environment: The variant to train in.
        until: When the stage is done.
        max_steps: Environment steps this stage may take, those of its confirmations included; a confirmation that is
            under way when they are spent is played to its end.
        on_timeout: What happens when `max_steps` are spent first: `"stop"` the run, or `"advance"` to the next stage.
        rehearse: Share of the copies that train in earlier stages' environments instead, so that these are not
            forgotten: each in one of them, the latest first. Their steps count; their episodes are neither shown nor
            judged. 0 is off, and more is at least one copy.
        on_collapse: What happens when the policy has lost what the fine-tuning stage before had reached: `"go on"`,
            or `"return"` to that stage with the policy as it is. To find out, 48 episodes and then 5 % of the
            stage's steps are played in the environment of the stage before.
        max_returns: How often in a run this stage may go back; then it goes on.
        critic_fit_steps: Environment steps, at most, during which only the critic learns, if the policy comes from
            cloning: a critic that knows nothing sends the first updates in random directions (DPPO, arXiv:2409.00588).
            It ends as soon as the critic explains the returns of a rollout that it has not learned from. `None` stands
            for 0, and 8,192 once the guard has brought the clone back.
        anchor_kl: Weight of the KL divergence (summed over action dimensions) from the anchor, which is the last
            policy that was cloned or passed a gate (VPT, arXiv:2206.11795). 0 is off. `None` stands for 0, and with PPO
            for 0.1 once the guard has brought the clone back, or exploration of actions that are not continuous was
            given back.
        anchor_steps: Environment steps over which that weight falls to 0 in a straight line.
        demonstration_loss: Weight of the mean negative log likelihood of demonstrated actions: each gradient step takes
            it over a random batch, as large as its own, of what the last cloning stage had to learn from (DAPG,
            arXiv:1709.10087; arXiv:1709.10089). 0 is off.
        demonstration_steps: Environment steps over which that weight falls to 0 in a straight line.
        exploration: How much the policy tries at the stage's start; `None` keeps what the stage before left. Of a
            continuous policy the log standard deviation, as a share of half an action's range; of all others the share,
            from 0 to 1, in which each state's distribution is mixed with the uniform one.
        explore_again: Give exploration back, once, where a policy that is certain of its actions gets nowhere: it
            starts with hardly any success in this variant, or has hardly any and no more after 20 thousand steps. 0.6
            of it is uniform then, and the anchor is the policy after that; a continuous policy gets half an action's
            range as its standard deviation, and no anchor.
        guard_steps: If the policy comes from cloning: environment steps of updates after which it is compared with the
            clone. If its training episodes are worse, it plays the `evaluation_episodes` that the clone has played;
            after a significant drop the clone comes back, and goes on with half the learning rate and clip range and
            twice the anchor. 0 is off.
        guard_rollbacks: How often the clone may come back; 0 only looks.
        evaluation_episodes: Played before the stage, and after it if its threshold was missed, to score the policy; 0
            plays none, and then nothing is guarded.
    """

    runner: ClassVar[str] = "rlstages.stages.fine_tuning.runner:FineTuningRunner"
    reinforces: ClassVar[bool] = True
    left_out_in: ClassVar[frozenset[str]] = frozenset({"no-curriculum", "scratch", "clone-only"})

    name: str
    environment: Environment
    _: KW_ONLY
    until: Criterion
    max_steps: int
    on_timeout: Literal["stop", "advance"] = "stop"
    rehearse: float = 0.0
    on_collapse: Literal["go on", "return"] = "go on"
    max_returns: int = 2
    critic_fit_steps: int | None = None
    anchor_kl: float | None = None
    anchor_steps: int = 40_000
    demonstration_loss: float = 0.0
    demonstration_steps: int = 40_000
    exploration: float | None = None
    explore_again: bool = True
    guard_steps: int = 8_192
    guard_rollbacks: int = 5
    evaluation_episodes: int = 48

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or contradict each other."""
        settle(self)
        require_name("FineTuning", self.name)
        where = f"stage {self.name!r}"
        require_environment(where, self.environment)
        require_criterion(where, self.until)
        require_int(where, "max_steps", self.max_steps)
        require_choice(where, "on_timeout", self.on_timeout, ["stop", "advance"])
        require_number(where, "rehearse", self.rehearse, least=0.0, most=0.9)
        require_choice(where, "on_collapse", self.on_collapse, ["go on", "return"])
        require_int(where, "max_returns", self.max_returns)
        if self.critic_fit_steps is not None:
            require_int(where, "critic_fit_steps", self.critic_fit_steps, least=0)
        if self.anchor_kl is not None:
            require_number(where, "anchor_kl", self.anchor_kl, least=0.0)
        require_int(where, "anchor_steps", self.anchor_steps, least=0)
        require_number(where, "demonstration_loss", self.demonstration_loss, least=0.0)
        require_int(where, "demonstration_steps", self.demonstration_steps, least=0)
        if self.exploration is not None:
            require_number(where, "exploration", self.exploration, least=-10.0, most=2.0)
        require(
            isinstance(self.explore_again, bool),
            f"{where}: explore_again is {self.explore_again!r}; give True or False.",
        )
        require_int(where, "guard_steps", self.guard_steps, least=0)
        require_int(where, "guard_rollbacks", self.guard_rollbacks, least=0)
        require_int(where, "evaluation_episodes", self.evaluation_episodes, least=0)
        self.check(where)

    def __str__(self) -> str:
        rehearsing = f", {self.rehearse:.0%} of the copies in earlier variants" if self.rehearse else ""
        if self.max_steps >= UNLIMITED_STEPS:
            return f"train in {self.environment} until the comparison's steps are spent{rehearsing}"
        limit = f"at most {self.max_steps:,} steps"
        settings = unusual(self, "rehearse")
        return f"train in {self.environment} until {self.until}, {limit}{rehearsing}{settings}"

    def rehearsal_copies(self, n_envs: int) -> int:
        """Return how many of so many copies rehearse."""
        return max(1, math.floor(self.rehearse * n_envs + 0.5)) if self.rehearse else 0

    def anchor_weight(self, algorithm: str, steps: int, needed: bool = False) -> float:
        """Return the weight of the KL term.

        Args:
            algorithm: Of the agent.
            steps: Of the stage, since the updates began that it holds back.
            needed: Whether something has shown that it is needed.
        """
        start = self.anchor_kl if self.anchor_kl is not None else 0.1 if needed and algorithm == "PPO" else 0.0
        return _faded(start, steps, self.anchor_steps)

    def demonstration_weight(self, steps: int) -> float:
        """Return the weight of the demonstrations' term after this many steps of the stage."""
        return _faded(self.demonstration_loss, steps, self.demonstration_steps)

    @property
    def demonstrations_needed(self) -> str:
        """The setting that needs demonstrations of an earlier stage, as it is written; empty if none does."""
        return f"demonstration_loss={self.demonstration_loss:g}" if self.demonstration_weight(0) > 0 else ""

    @property
    def step_limit(self) -> int:
        """Environment steps after which it ends."""
        return self.max_steps

    @property
    def goes_on_when_missed(self) -> bool:
        """Whether the next stage follows where this one misses its threshold."""
        return self.on_timeout == "advance"

    def in_force(self, agent: Agent) -> dict[str, Any]:
        """Return the agent's settings as they are in this stage, and the weight of the KL term."""
        return {**agent.settings(self), "anchor_kl": self.anchor_weight(agent.algorithm, 0)}

    def check_place(self, before: Sequence[StageSpec], agent: Agent) -> None:
        """Refuse settings that the agent or the stages before make impossible, and too few steps to learn in.

        A stage needs ten rollouts, and its critic fit if the policy is handed over: with less, no update could show in
        its score.
        """
        where = f"stage {self.name!r}"
        refuse_ppo_only(where, self, agent.algorithm)
        settings, rollout = agent.settings(self), agent.rollout_steps
        if agent.algorithm == "PPO":
            whole = rollout >= settings["batch_size"]
            require(whole, f"{where}: a rollout has {rollout} steps, less than batch_size={settings['batch_size']}.")
        last = before[-1] if before else None
        critic_fit = (self.critic_fit_steps or 0) if last is not None and not last.reinforces else 0
        least = critic_fit + 10 * rollout
        require(
            self.max_steps >= least,
            f"{where}: max_steps is {self.max_steps:,}, but ten rollouts of {rollout:,} steps and a critic fit of "
            f"{critic_fit:,} take {least:,}; raise max_steps, or lower critic_fit_steps, n_envs or n_steps.",
        )
        require(
            self.on_collapse == "go on" or (last is not None and last.reinforces),
            f"{where}: on_collapse='return', but the stage before it is no FineTuning stage; leave it out.",
        )
        if self.rehearse:
            self._check_rehearsal(before, agent.n_envs)

    def _check_rehearsal(self, before: Sequence[StageSpec], n_envs: int) -> None:
        where = f"stage {self.name!r}: rehearse={self.rehearse:g}"
        require(
            bool(earlier_environments(before, self.environment)),
            f"{where}, but no stage before it has another environment; leave rehearse out.",
        )
        require(
            self.rehearsal_copies(n_envs) < n_envs,
            f"{where} of {n_envs} cop{'y' if n_envs == 1 else 'ies'} leaves none for the stage itself; lower it, or "
            "raise Agent(n_envs=...).",
        )

    def trained_in(self, before: Sequence[StageSpec]) -> tuple[Environment, ...]:
        """Return its environment, and those that it rehearses."""
        rehearsed = earlier_environments(before, self.environment) if self.rehearse else ()
        return (self.environment, *rehearsed)

    # --- in the arms of a comparison -------------------------------------------------------------------------------

    def possible_after(self, before: Sequence[StageSpec]) -> FineTuning:
        """Return it without what needs stages before it that an arm has left out."""
        follows = bool(before) and before[-1].reinforces
        shown = any(stage.demonstrates for stage in before)
        return replace(
            self,
            rehearse=self.rehearse if earlier_environments(before, self.environment) else 0.0,
            on_collapse=self.on_collapse if follows else "go on",
            demonstration_loss=self.demonstration_loss if shown or not self.demonstrations_needed else 0.0,
        )

    def patient(self) -> FineTuning:
        """Return it so that the next stage follows where its threshold is missed."""
        return replace(self, on_timeout="advance")

    def unprotected(self, before: Sequence[StageSpec], agent: Agent) -> FineTuning:
        """Return it with nothing that holds its updates back, or takes them back.

        The first one after cloning starts with the exploration noise of a policy that is built anew,
        `Agent.log_std_init`, as it does where a clone's network is put into a new PPO.
        """
        handed_over = bool(before) and not before[-1].reinforces
        noise = agent.log_std_init if handed_over else self.exploration
        guards: dict[str, Any] = {"explore_again": False, "guard_steps": 0, "on_collapse": "go on", "rehearse": 0.0}
        return replace(self, exploration=noise, **UNPROTECTED, **guards)

    def endless(self, before: Sequence[StageSpec], agent: Agent) -> FineTuning:
        """Return a stage that trains on where this one ends, without end.

        Nothing is handed over there, so there is no critic fit, no KL term and no demonstration loss; schedules stay
        at their ends, or where these are 0, which no setting may be, at what the stage's last update has.
        """
        rollout = agent.rollout_steps
        progress = (self.max_steps - 1) // rollout * rollout / self.max_steps
        settings: dict[str, Any] = {
            # A schedule that is 0 all along stays one.
            name: value.end or value.at(progress) or value
            for name, value in {**agent.given(), **self.given()}.items()
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
            **UNPROTECTED,
            **settings,
        )


def _faded(start: float, steps: int, length: int) -> float:
    return start * max(0.0, 1.0 - steps / length) if length else 0.0
