"""The policies that runs left behind: loaded, scored, exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stable_baselines3.common.policies import ActorCriticPolicy

from rlstages.environments import make_vec_env
from rlstages.episodes import Score, score
from rlstages.errors import InputError, require
from rlstages.evaluation import evaluate
from rlstages.events import StageFinished
from rlstages.learners.learner import Learner, read_policy
from rlstages.rundir import RunRecord, read_events, read_record
from rlstages.seeding import Purpose
from rlstages.spaces import space_from_data
from rlstages.specs import Environment


def load_policy(run: Path | str) -> ActorCriticPolicy:
    """Return the policy at the end of a run's last finished stage, ready for `policy.predict(observation)`.

    Args:
        run: A run directory.

    Raises:
        InputError: If it is no run directory, or no stage has ended in it.
    """
    policy = load_learner(Path(run)).policy
    policy.set_training_mode(False)
    return policy


def load_learner(run: Path) -> Learner:
    """Return a learner with the policy at the end of a run's last finished stage.

    Raises:
        InputError: If it is no run directory, or no stage has ended in it.
    """
    learner = learner_of(read_record(run))
    learner.load_policy(read_policy(final_policy_file(run)))
    return learner


def learner_of(record: RunRecord) -> Learner:
    """Build the learner that a run's record describes, with fresh weights."""
    observation_space, action_space = (space_from_data(record.spaces[name]) for name in ("observation", "action"))
    return Learner(record.curriculum.agent, observation_space, action_space, record.seed)


def final_policy_file(run: Path) -> Path:
    """Return the file of the policy at the end of the last finished stage.

    Raises:
        InputError: If no stage has ended.
    """
    files = [event.payload.policy for event in read_events(run) if isinstance(event.payload, StageFinished)]
    if not files:
        raise InputError(f"In {run} no stage has ended yet, so there is no policy to load; train it further.")
    return run / files[-1]


def evaluate_run(
    run: Path, episodes: int, seed: int, environments: Sequence[Environment] | None = None
) -> list[tuple[Environment, Score]]:
    """Score a run's final policy.

    Args:
        run: A run directory.
        episodes: How many to play in each environment.
        seed: Of the episodes.
        environments: Where; default every environment of the curriculum and its held-out ones, each once.
    """
    record = read_record(run)
    policy = load_policy(run)
    agent = record.curriculum.agent
    if environments is None:
        stages = [stage.environment for stage in record.curriculum.stages]
        environments = list(dict.fromkeys([*stages, *record.curriculum.held_out]))
    require(episodes > 0, f"The number of episodes is {episodes}; give at least 1.")
    scores = []
    for index, environment in enumerate(environments):
        env = make_vec_env(environment, agent.n_envs, seed, index, Purpose.EVALUATION)
        try:
            played = evaluate(policy, env, episodes, seed, index, agent.action_mode == "deterministic")
        finally:
            env.close()
        scores.append((environment, score(played)))
    return scores
