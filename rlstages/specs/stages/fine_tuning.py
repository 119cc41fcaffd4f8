"""The stages of a curriculum, as frozen data."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Literal

from rlstages.errors import InputError, in_short, require, require_choice, require_int, require_name, require_number
from rlstages.specs.agent import Agent, Environment, Expert, Hyperparameters, refuse_ppo_only
from rlstages.specs.criteria import Criterion
from rlstages.specs.plain import settle
from rlstages.specs.serialization import serializable, unusual
from rlstages.specs.unknown import refusing_unknown

_AGENTS = [field.name for field in fields(Agent)]
UNLIMITED_STEPS = 10**12
"""The limit of a stage that goes on until whoever watches the run has seen enough, as those of comparisons do."""


@serializable
@refusing_unknown(*_AGENTS)
@dataclass(frozen=True)
class BehaviorCloning:
    """Train the learner's policy to act as demonstrations do.

    The loss is the negative log likelihood of the demonstrated actions (Pomerleau 1991, as `imitation` implements
    it). Whole episodes are held out; training stops when their loss has not fallen for `patience` epochs, and the
    best epoch's weights are kept.

    Args:
        name: Shown everywhere; unique in its curriculum.
        environment: Where the expert shows and the clone is scored.
        expert: Who shows. Give this or `demonstrations`.
        demonstrations: A file of recorded episodes (`rlstages demos record` writes them).
        until: What the clone must score before the next stage may start. If it is missed, the run stops and says so,
            unless `on_failure` is `"advance"`.
        on_failure: `"stop"` or `"advance"`.
        max_epochs: Passes over the demonstrations, at most.
        learning_rate: Adam's step size.
        batch_size: Observations per gradient step.
        entropy_weight: Weight of the entropy bonus in the loss.
        l2_weight: Weight of the squared norm of the parameters in the loss.
        held_out: Share of the episodes that is only used to measure.
        patience: Epochs without improvement on the held-out episodes before training stops.
        best: Keep only this many episodes, those of the highest return.
        min_return: Keep only episodes with at least this return.
        min_log_std: Floor of a continuous policy's log standard deviation, as a share of half an action's range. A
            deterministic expert drives it down without limit, and with it the exploration that fine-tuning needs.
        evaluation_episodes: Played before and after cloning to score the policy; 0 plays none.
    """

    name: str
    environment: Environment
    _: KW_ONLY
    expert: Expert | None = None
    demonstrations: str | os.PathLike[str] | None = None
    until: Criterion | None = None
    on_failure: Literal["stop", "advance"] = "stop"
    max_epochs: int = 30
    learning_rate: float = 1e-3
    batch_size: int = 64
    entropy_weight: float = 1e-3
    l2_weight: float = 0.0
    held_out: float = 0.1
    patience: int = 5
    best: int | None = None
    min_return: float | None = None
    min_log_std: float = -2.0
    evaluation_episodes: int = 48

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or contradict each other."""
        settle(self)
        require_name("BehaviorCloning", self.name)
        where = f"stage {self.name!r}"
        _require_environment(where, self.environment)
        if isinstance(self.demonstrations, os.PathLike):
            object.__setattr__(self, "demonstrations", os.fspath(self.demonstrations))
        require(
            (self.expert is None) != (self.demonstrations is None),
            f"{where}: give either expert=Expert(...) or demonstrations='file', and not both.",
        )
        named = getattr(self.expert, "__name__", None) or in_short(self.expert)
        require(
            self.expert is None or isinstance(self.expert, Expert),
            f"{where}: expert must be an Expert(...); write Expert({named}).",
        )
        require(
            self.demonstrations is None or (isinstance(self.demonstrations, str) and bool(self.demonstrations)),
            f"{where}: demonstrations is {self.demonstrations!r}; give the path of a file.",
        )
        _require_criterion(where, self.until, optional=True)
        require_choice(where, "on_failure", self.on_failure, ["stop", "advance"])
        require_int(where, "max_epochs", self.max_epochs)
        require_number(where, "learning_rate", self.learning_rate, above=0.0)
        require_int(where, "batch_size", self.batch_size)
        require_number(where, "entropy_weight", self.entropy_weight, least=0.0)
        require_number(where, "l2_weight", self.l2_weight, least=0.0)
        require_number(where, "held_out", self.held_out, least=0.0, most=0.9)
        require_int(where, "patience", self.patience)
        if self.best is not None:
            require_int(where, "best", self.best)
        if self.min_return is not None:
            require_number(where, "min_return", self.min_return)
        require_number(where, "min_log_std", self.min_log_std)
        require_int(where, "evaluation_episodes", self.evaluation_episodes, least=0)

    @property
    def source(self) -> str:
        """The expert or the file that it copies, as it was written."""
        return str(self.expert.source if self.expert else self.demonstrations)

    @property
    def shower(self) -> str:
        """Who shows, at the beginning of a sentence."""
        if self.expert is not None:
            return f"The expert {self.expert.name}"
        return os.path.basename(str(self.demonstrations))

    def __str__(self) -> str:
        source = str(self.expert) if self.expert else self.demonstrations
        demand = f", until {self.until}" if self.until else ""
        settings = unusual(self, "expert", "demonstrations", "until")
        return f"clone {source} in {self.environment}{demand}{settings}"


@serializable
@refusing_unknown(*_AGENTS)
@dataclass(frozen=True)
class FineTuning(Hyperparameters):
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
        _require_environment(where, self.environment)
        _require_criterion(where, self.until)
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
    def needs_demonstrations(self) -> bool:
        """Whether that term is ever there."""
        return self.demonstration_weight(0) > 0


Stage = BehaviorCloning | FineTuning


def gate_after(stages: Sequence[Stage], index: int) -> Criterion | None:
    """Return what a cloned policy is asked for next: by its own stage, or by the next one in the same environment."""
    own = stages[index].until
    if own is not None or index + 1 == len(stages) or stages[index + 1].environment != stages[index].environment:
        return own
    return stages[index + 1].until


def goes_on_when_missed(stage: Stage) -> bool:
    """Say whether the next stage follows where this one misses its threshold."""
    return (stage.on_timeout if isinstance(stage, FineTuning) else stage.on_failure) == "advance"


def refuse_unfit(stage: Stage, before: Stage | None, agent: Agent) -> None:
    """Refuse a stage whose settings the agent's algorithm would ignore, or whose budget is too small to learn in.

    A stage needs ten rollouts, and its critic fit if it follows a cloning stage: with less, no update could show in
    its score.
    """
    if isinstance(stage, BehaviorCloning):
        return
    where = f"stage {stage.name!r}"
    refuse_ppo_only(where, stage, agent.algorithm)
    settings = agent.settings(stage)
    if agent.algorithm == "PPO":
        whole = agent.rollout_steps >= settings["batch_size"]
        require(
            whole, f"{where}: a rollout has {agent.rollout_steps} steps, less than batch_size={settings['batch_size']}."
        )
    critic_fit = (stage.critic_fit_steps or 0) if isinstance(before, BehaviorCloning) else 0
    least = critic_fit + 10 * agent.rollout_steps
    require(
        stage.max_steps >= least,
        f"{where}: max_steps is {stage.max_steps:,}, but ten rollouts of {agent.rollout_steps:,} steps and a "
        f"critic fit of {critic_fit:,} take {least:,}; raise max_steps, or lower critic_fit_steps, n_envs or n_steps.",
    )


def earlier_environments(stages: Sequence[Stage], index: int) -> list[Environment]:
    """Return the environments of the stages before one, without its own and each once, the latest first."""
    earlier = dict.fromkeys(stage.environment for stage in reversed(stages[:index]))
    return [environment for environment in earlier if environment != stages[index].environment]


def refuse_rehearsal(stages: Sequence[Stage], index: int, n_envs: int) -> None:
    """Refuse a stage that is to rehearse where nothing else comes before it, or with all of its copies."""
    stage = stages[index]
    if isinstance(stage, BehaviorCloning) or not stage.rehearse:
        return
    where = f"stage {stage.name!r}: rehearse={stage.rehearse:g}"
    require(
        bool(earlier_environments(stages, index)),
        f"{where}, but no stage before it has another environment; leave rehearse out.",
    )
    require(
        stage.rehearsal_copies(n_envs) < n_envs,
        f"{where} of {n_envs} cop{'y' if n_envs == 1 else 'ies'} leaves none for the stage itself; lower it, or raise "
        "Agent(n_envs=...).",
    )


def refuse_return(stage: Stage, before: Stage | None) -> None:
    """Refuse a stage that is to go back where there is no fine-tuning stage to go back to."""
    require(
        isinstance(stage, BehaviorCloning) or stage.on_collapse == "go on" or isinstance(before, FineTuning),
        f"stage {stage.name!r}: on_collapse='return', but the stage before it is no FineTuning stage; leave it out.",
    )


def undemonstrated(stages: Sequence[Stage]) -> list[FineTuning]:
    """Return the stages that need demonstrations, and have no cloning stage before them to have these from."""
    first = next((index for index, stage in enumerate(stages) if isinstance(stage, BehaviorCloning)), len(stages))
    return [stage for stage in stages[:first] if isinstance(stage, FineTuning) and stage.needs_demonstrations]


def refuse_undemonstrated(stages: Sequence[Stage]) -> None:
    """Refuse a stage that needs demonstrations where nothing before it has any."""
    for stage in undemonstrated(stages):
        raise InputError(
            f"stage {stage.name!r}: demonstration_loss={stage.demonstration_loss:g}, but there is no BehaviorCloning "
            "stage before it to have demonstrations from; add one, start from a run that has cloned, or leave it out."
        )


def _faded(start: float, steps: int, length: int) -> float:
    return start * max(0.0, 1.0 - steps / length) if length else 0.0


def _require_environment(where: str, environment: object) -> None:
    require(
        isinstance(environment, Environment),
        f"{where}: the environment is {environment!r}; wrap it as Environment('module:Id-v0', ...).",
    )


def _require_criterion(where: str, until: object, optional: bool = False) -> None:
    require(
        isinstance(until, Criterion) or (optional and until is None),
        f"{where}: until is {until!r}; give a criterion such as SuccessThreshold(0.9) or RewardThreshold(200).",
    )
