"""Batches that reset their copies by themselves, in the step after: gymnasium's own, whose resets are no steps."""

import numpy as np
import pytest
from building import RESETS_ITSELF, VECTOR_CARTPOLE, agent, curriculum, learner_for, payloads, tuning
from gymnasium.envs.classic_control import cartpole
from refusing import refused
from stable_baselines3.common.env_checker import check_env

from rlstages import Environment, RewardThreshold, train
from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.determinism import doubts_about
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.rewards import NormalizedRewards
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.events import RolloutFinished
from rlstages.learners.algorithms.on_policy.rollout import collect
from rlstages.training.preflight import preflight

pytestmark = pytest.mark.skipif(not RESETS_ITSELF, reason="this gymnasium has none")
POLE = Environment(VECTOR_CARTPOLE)
SHORT = Environment(VECTOR_CARTPOLE, max_episode_steps=12)
FALLEN = 0.20943951


def actions_of(env, steps, seed=1):
    return np.random.default_rng(seed).integers(0, 2, (steps, env.num_envs))


def play(env, steps, seed=1):
    return [env.step(actions) for actions in actions_of(env, steps, seed)]


def transitions(steps, copies, environment=POLE):
    """What gymnasium's own batch does in the same episodes: for each copy, its steps as they follow each other."""
    raw = cartpole.CartPoleVectorEnv(copies, **environment.kwargs)
    seen, _ = raw.reset(seed=episode_seed(0, 0, Purpose.TRAINING, 0, 0))
    told = []
    for actions in actions_of(raw, steps):
        after, rewards, terminated, truncated, _ = raw.step(actions)
        told.append((seen, after, rewards, terminated, truncated))
        seen = after
    return told


def rollout(environment=POLE, n_steps=64, engine="numpy", wrap=lambda env: env, **settings):
    learner = learner_for(environment, agent(n_steps=n_steps, engine=engine, **settings))
    env = wrap(make_vec_env(environment, 4, 0, 0))
    learner.algorithm.begin(env)
    return learner, env, collect(learner.algorithm.model, env, learner.algorithm.engine, 0.95)


def test_it_is_a_batch_in_every_way_to_name_it():
    for environment in (POLE, Environment("CartPole-v1", vectorize="batched")):
        env = make_vec_env(environment, 3, 0, 0)
        assert isinstance(env.venv, BatchedVecEnv) and env.resets_itself
        # As gymnasium.make_vec passes on the limit of the id.
        assert env.venv.batched.max_episode_steps == 500
    assert not make_vec_env(Environment("CartPole-v1"), 3, 0, 0).resets_itself, "auto keeps the episodes' own seeds"


@pytest.mark.parametrize("environment", [POLE, SHORT], ids=["falls", "cut short"])
def test_episodes_are_counted_without_resets(environment):
    env = make_vec_env(environment, 4, 0, 0)
    env.reset()
    told = play(env, 150)

    lengths, expected, begun = np.zeros(4, int), [], np.zeros(4, bool)
    for (seen, rewards, dones, infos), step in zip(told, transitions(150, 4, environment), strict=True):
        before, after, _, terminated, truncated = step
        np.testing.assert_array_equal(seen, after)
        lengths = np.where(begun, 0, lengths + 1)
        np.testing.assert_array_equal(rewards, np.where(begun, 0.0, 1.0))
        np.testing.assert_array_equal(dones, terminated | truncated)
        for copy in np.flatnonzero(dones):
            expected.append((copy, lengths[copy], float(lengths[copy])))
            np.testing.assert_array_equal(infos[copy]["terminal_observation"], after[copy])
            assert infos[copy]["TimeLimit.truncated"] == (truncated[copy] and not terminated[copy])
        begun = dones
    assert [(e.copy, e.length, e.total_reward) for e in env.take()] == expected and len(expected) > 15
    np.testing.assert_array_equal(env.lengths, np.where(begun, 0, lengths))


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_no_reset_is_learned_from(engine):
    learner, env, buffer = rollout(engine=engine)
    idle, seen = buffer.idle.copy(), buffer.observations.copy()
    assert idle.sum() > 5
    # What an idle row shows is where the episode before ended: the pole has fallen there, and nowhere else.
    np.testing.assert_array_equal(np.abs(seen[:, :, 2]) > FALLEN, idle)

    learner.algorithm.update(buffer, {**learner.agent.settings(), "n_epochs": 1})

    kept = buffer
    kept.flatten()
    assert len(kept.observations) == buffer.steps == (~idle).sum() == learner.algorithm.model.num_timesteps
    assert len(kept.actions) == len(kept.advantages) == len(kept.returns) == len(kept.observations)
    assert np.abs(kept.observations[:, 2]).max() <= FALLEN


def test_advantages_are_those_of_each_episode_on_its_own():
    learner, env, buffer = rollout(SHORT)
    gamma, decay = learner.algorithm.model.gamma, learner.algorithm.model.gamma * 0.95
    played = {copy: np.flatnonzero(~buffer.idle[:, copy]) for copy in range(4)}
    ends = 0
    for copy, rows in played.items():
        # Each run of rows without a gap is an episode; the first and the last may be parts of one.
        for episode in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if episode[-1] + 1 >= buffer.buffer_size:
                continue
            ends += 1
            # Where it was cut short, the value of its last observation is in the last reward already.
            ahead, following = 0.0, 0.0
            for row in episode[::-1]:
                value, reward = buffer.values[row, copy], buffer.rewards[row, copy]
                ahead = reward + gamma * following - value + decay * ahead
                following = value
                np.testing.assert_allclose(buffer.advantages[row, copy], ahead, rtol=1e-4, atol=1e-5)
    assert ends > 10


def test_statistics_of_rewards_count_steps_alone():
    _, env, buffer = rollout(SHORT, wrap=lambda env: NormalizedRewards(env, 0.9))

    # stable-baselines3 begins with a count of 1e-4.
    assert env.ret_rms.count == pytest.approx(buffer.steps, abs=0.01)
    assert buffer.steps < buffer.rewards.size


@pytest.mark.parametrize("ended", [False, True], ids=["in the midst of episodes", "before a reset"])
def test_copies_come_back_exactly(ended):
    lived, anew = (monitor_of(make_vec_env(SHORT, 3, 0, 0)) for _ in range(2))
    lived.reset()
    told = play(lived, 100)
    while bool(told[-1][2].any()) is not ended:
        told = play(lived, 1)
    lived.take()

    _, lost = anew.load_state_dict(lived.state_dict())

    assert lost == []
    for one, other in zip(play(anew, 80), play(lived, 80), strict=True):
        np.testing.assert_equal(one, other)
    assert anew.take() == lived.take() != []


def test_what_is_less_exact_is_said_and_no_more():
    (seeds,) = doubts_about(POLE)
    assert seeds.startswith("CartPoleVectorEnv resets its copies by itself and takes one seed for all of them")
    also_seeds, state = doubts_about(Environment("toys:side_by_side"))
    assert "takes one seed for all" in also_seeds
    assert "cannot be brought back by a snapshot of its arrays (the observations came out otherwise" in state
    checked = preflight(curriculum(tuning("tune", POLE, until=RewardThreshold(100.0))))
    assert checked.doubts == (seeds,)


def test_one_copy_is_an_environment_like_any_other():
    env = make_environment(SHORT)
    check_env(env)
    first, _ = env.reset(seed=3)
    np.testing.assert_array_equal(env.reset(seed=3)[0], first)
    single = make_vec_env(Environment(VECTOR_CARTPOLE, vectorize="in-process", max_episode_steps=12), 2, 0, 0)
    single.reset()
    play(single, 40)
    assert {episode.length for episode in single.take()} <= set(range(8, 13)) and single.idle is None


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            Environment("toys:side_by_side", mode="SameStep"),
            ("environment-invalid", "side_by_side(mode='SameStep')", "autoreset_mode"),
        ),
        (Environment("toys:takes_num_envs"), ("environment-invalid", "takes_num_envs", "")),
        (Environment(VECTOR_CARTPOLE, hue=3), ("environment-invalid", "CartPoleVectorEnv(hue=3)", "")),
        (Environment("Acrobot-v1", vectorize="batched"), ("setting-conflict", "Acrobot-v1", "vectorize")),
        (
            Environment(VECTOR_CARTPOLE, wrappers=["toys:DoubleReward"], vectorize="batched"),
            ("setting-conflict", "CartPoleVectorEnv", "vectorize"),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Environment) else "",
)
def test_what_cannot_be_masked_is_refused_in_one_sentence(environment, sentence):
    with refused(*sentence):
        make_vec_env(environment, 2, 0, 0)


def test_wrappers_are_put_around_single_copies():
    env = make_vec_env(Environment(VECTOR_CARTPOLE, wrappers=["toys:DoubleReward"]), 2, 0, 0)
    env.reset()
    assert play(env, 1)[0][1].tolist() == [2.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_training_reaches_a_threshold(engine, here):
    until = RewardThreshold(150.0, worst=0.0)
    settings = {"n_envs": 8, "n_steps": 128, "batch_size": 128, "learning_rate": 1e-3, "network": (64, 64)}
    plan = curriculum(
        tuning("balance", POLE, until=until, max_steps=80_000, critic_fit_steps=0), engine=engine, **settings
    )

    assert train(plan, out="run", seed=1).outcome == "reached"

    rollouts = payloads("run", RolloutFinished)
    assert all(after.stage_steps > before.stage_steps for before, after in zip(rollouts, rollouts[1:], strict=False))
    # Resets are no steps: early rollouts, of short episodes, count visibly fewer than they have rows.
    assert rollouts[0].stage_steps < 0.97 * 8 * 128
    assert rollouts[-1].mean_return == pytest.approx(rollouts[-1].mean_length)
