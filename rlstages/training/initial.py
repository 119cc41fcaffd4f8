"""Another run's final policy, which a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym

from rlstages.environments.action_units import require_bounds
from rlstages.environments.spaces import describe_space
from rlstages.errors import InputError
from rlstages.learners.learner import Learner
from rlstages.play.saved_policies import final_weights, last_finished, spaces_of
from rlstages.specs.agent import Agent
from rlstages.specs.curriculum import Curriculum
from rlstages.storage.record import read_record


def origin_of(initial: Path | str | None) -> dict[str, str] | None:
    """Return what tells the policy that a run starts from, wherever its directory is."""
    if initial is None:
        return None
    name = read_record(Path(initial)).curriculum.name
    return {"name": name, "digest": last_finished(Path(initial))[1].digest}


def start_from(learner: Learner, curriculum: Curriculum, run: Path) -> None:
    """Give the learner of a curriculum another run's final policy, which it trusts.

    Raises:
        InputError: If the policy has another network, or the first stage cannot go on from it.
    """
    record = read_record(run)
    stages = dict(enumerate(record.curriculum.stages))
    seen, acts = spaces_of(record)
    require_bounds(f"The policy of {run} acts", acts, "this curriculum's", learner.action_space)
    try:
        learner.load_policy(final_weights(run))
    except InputError as error:
        theirs = _network(record.curriculum.agent, seen, acts)
        own = _network(curriculum.agent, learner.policy.observation_space, learner.policy.action_space)
        if theirs == own:
            raise
        raise InputError(
            f"The policy of {run} has {theirs}; this curriculum's has {own}.", "policy-misfit", run
        ) from error
    last = stages.get(last_finished(run)[0])
    curriculum.stages[0].check_place([] if last is None else [last], curriculum.agent)
    learner.objective = "reinforcement" if last is None or last.reinforces else "cloning"
    learner.trust()


def _network(agent: Agent, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> str:
    """Return in words what decides which weights a policy has."""
    standardised = "standardised " if agent.normalize_observations else ""
    return (
        f"network {list(agent.network)} ({agent.policy}), {standardised}observations "
        f"{describe_space(observation_space)} and actions {describe_space(action_space)}"
    )
