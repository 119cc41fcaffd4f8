"""What holds between the stages of a curriculum: which may follow which, and what one has from those before it."""

from __future__ import annotations

from collections.abc import Sequence

from rlstages.errors import InputError, require
from rlstages.specs.agent import Agent, refuse_ppo_only
from rlstages.specs.criteria import Criterion
from rlstages.specs.environment import Environment
from rlstages.specs.stages.cloning import BehaviorCloning
from rlstages.specs.stages.fine_tuning import FineTuning

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
