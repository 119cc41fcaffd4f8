"""Loading, scoring and exporting the policies of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import gymnasium as gym
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from rlstages.environments.action_units import require_bounds, scale_of, unit_space
from rlstages.environments.make import make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.seeding import Purpose
from rlstages.environments.spaces import space_from_data, space_to_data, spell_space
from rlstages.errors import InputError, require, text_of
from rlstages.events import StageFinished
from rlstages.learners.learner import Learner, Weights, read_policy, require_network
from rlstages.learners.sb3 import build_model
from rlstages.play.play import play_episodes
from rlstages.reproducibility import limited_threads, one_at_a_time, random_state_kept, threads_of
from rlstages.specs.criteria.episodes import Score, score
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.environment import Environment
from rlstages.specs.plain import whole
from rlstages.storage.record import RunRecord, read_record
from rlstages.storage.run_directory import read_events
from rlstages.storage.trust import trust_sources
from rlstages.storage.untrusted import inside

POLICY_ACTION = "policy_action"


@one_at_a_time("load_policy()")
def load_policy(run: Path | str) -> ActorCriticPolicy:
    """Return the policy of a run's last finished stage, ready for `policy.predict(observation)`.

    It acts in the environment's own units, within its bounds. No code that the run names is imported, so runs of
    strangers
    are safe.

    Args:
        run: Run directory.

    Raises:
        InputError: If this is not a run directory, or no stage has ended in it.
    """
    policy = model_in_own_units(load_learner(Path(run))).policy
    policy.set_training_mode(False)
    return policy


def model_in_own_units(learner: Learner) -> OnPolicyAlgorithm:
    """Return a learner's model for actions in the environment's own units, as plain stable-baselines3 needs it.

    If the policy acts in [-1, 1] instead (`rlstages.environments.action_units`), the result is a new model with a new
    optimiser. The conversion of actions is part of its last layer and its `log_std`, exact up to rounding. In
    dimensions
    whose bounds are equal the noise stays as it is, because clipping removes all of it.
    """
    own = learner.action_space
    if unit_space(own) is own:
        return cast(OnPolicyAlgorithm, learner.algorithm.model)
    assert isinstance(own, spaces.Box)
    half, middle = (torch.as_tensor(numbers) for numbers in scale_of(own))
    weights = learner.weights()
    kinds = {name: value.dtype for name, value in weights.items()}
    # Compute on the CPU, because not every device supports float64.
    last, bias, noise = (weights[name].cpu().double() for name in ("action_net.weight", "action_net.bias", "log_std"))
    weights["action_net.weight"], weights["action_net.bias"] = last * half[:, None], bias * half + middle
    weights["log_std"] = noise + torch.where(half > 0, half, 1.0).log()
    with random_state_kept():
        model = build_model(learner.agent, learner.policy.observation_space, own, learner.algorithm.model.seed or 0)
    model.policy.load_state_dict({name: value.to(kinds[name]) for name, value in weights.items()})
    return model


def load_learner(run: Path) -> Learner:
    """Return a learner with the policy of a run's last finished stage.

    Raises:
        InputError: If this is not a run directory, or no stage has ended in it.
    """
    record, weights = read_record(run), final_weights(run)
    learner = learner_of(record, weights)
    learner.load_policy(weights)
    return learner


def learner_of(record: RunRecord, weights: Mapping[str, torch.Tensor] | None = None) -> Learner:
    """Build the learner that a run's record describes, with new weights.

    Args:
        record: Record of the run (`run.json`).
        weights: Weights that will be loaded. A network of another size is refused before it is built, because it may be
            huge.
    """
    observation_space, action_space = spaces_of(record)
    agent = record.curriculum.agent
    if weights is not None:
        require_network(agent, observation_space, action_space, weights)
    try:
        return Learner(agent, observation_space, action_space, record.seed)
    except InputError:
        raise
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        reason = text_of(error)
        raise InputError(
            f"The agent's network and rollouts cannot be made on this machine: {reason}.", "unavailable"
        ) from error


def spaces_of(record: RunRecord) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Return the observation space of a run, and its action space in the environment's own units.

    Raises:
        InputError: If the run's policy acts in other units than current policies.
    """
    observation, action = (space_from_data(record.spaces.get(name, {})) for name in ("observation", "action"))
    acts_in = space_from_data(record.spaces[POLICY_ACTION]) if POLICY_ACTION in record.spaces else action
    sentence = (
        f"The run of {record.curriculum.name!r} was written by rlstages {record.versions['rlstages']}, whose policies "
        f"act in the environment's own units, here {spell_space(action)}; now they act in [-1, 1], so train it again."
    )
    require(acts_in == unit_space(action), sentence, "run-changed", record.curriculum.name)
    return observation, action


def spaces_to_data(observation: gym.Space[Any], action: gym.Space[Any]) -> dict[str, Any]:
    """Return the spaces as data for a run's record, with the policy's action space if it acts in other units."""
    own = {"observation": space_to_data(observation), "action": space_to_data(action)}
    units = unit_space(action)
    return own if units is action else {**own, POLICY_ACTION: space_to_data(units)}


def last_finished(run: Path) -> tuple[int, StageFinished]:
    """Return the index of the last finished stage, and its event.

    Raises:
        InputError: If no stage has ended.
    """
    ended = [(e.stage_index, e.payload) for e in read_events(run) if isinstance(e.payload, StageFinished)]
    if not ended:
        raise InputError(
            f"In {run} no stage has ended yet, so there is no policy to load; train it further.", "run-unready", run
        )
    return ended[-1]


def final_policy_file(run: Path) -> Path:
    """Return the policy file of the last finished stage.

    Raises:
        InputError: If no stage has ended.
    """
    return inside(run, last_finished(run)[1].policy)


def final_weights(run: Path) -> Weights:
    """Return the weights in the policy file of the last finished stage.

    Raises:
        InputError: If no stage has ended, or the file has changed.
    """
    return read_policy(final_policy_file(run), last_finished(run)[1].digest)


class Scored(NamedTuple):
    """The score of a policy in an environment."""

    environment: Environment
    score: Score


@one_at_a_time("the evaluation of a run")
def evaluate(
    run: Path | str,
    episodes: int = 100,
    seed: int = 1_000_000,
    environments: Sequence[Environment] | None = None,
    *,
    curriculum: Curriculum | None = None,
    trust_imports: bool = False,
) -> list[Scored]:
    """Score a run's final policy in environments.

    Args:
        run: Run directory.
        episodes: Number of episodes in each environment.
        seed: Seed of the episodes.
        environments: Environments. By default, all of the curriculum and its held-out ones, each once.
        curriculum: Curriculum whose environments may be imported if somebody else made the run.
        trust_imports: Whether all code that the run names may be imported.

    Raises:
        InputError: If the run names code that may not be imported.
    """
    run, episodes, seed = Path(run), whole(episodes), whole(seed)
    sentence = f"The number of episodes is {episodes}; give at least 1."
    require(episodes > 0, sentence, "setting-range", name="episodes", value=episodes)
    record = read_record(run)
    if environments is None:
        trust_sources(run, record, curriculum, trust_imports)
        stages = [stage.environment for stage in record.curriculum.stages]
        environments = list(dict.fromkeys([*stages, *record.curriculum.held_out]))
    agent = record.curriculum.agent
    scores = []
    with limited_threads(threads_of(agent)):
        learner = load_learner(run)
        for index, environment in enumerate(environments):
            env = make_vec_env(environment, agent.n_envs, seed, index, Purpose.EVALUATION)
            try:
                theirs = monitor_of(env).action_space
                require_bounds(f"The policy of {run} acts", learner.action_space, f"{environment}", theirs)
                played = play_episodes(
                    learner.algorithm, env, episodes, seed, index, agent.action_mode == "deterministic"
                )
            finally:
                env.close()
            # Waves are complete. Of the last one, the episodes that began first count, whatever their length.
            scores.append(Scored(environment, score(played[:episodes])))
    return scores
