"""The three forms of an environment, the seeds of its episodes, and what the monitor refuses."""

import os
import signal
import textwrap
import time
from dataclasses import astuple

import gymnasium as gym
import numpy as np
import pytest
import toys
from building import echo
from gymnasium import spaces
from refusing import refused
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from rlstages import Environment
from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.reports import EnvironmentFault
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.environments.subprocesses import Workers
from rlstages.environments.success import success_rule
from rlstages.errors import Fault
from rlstages.specs.references import load_file

ROOMS = "rlstages_envs:rlstages/Rooms-v0"
FORMS = ["in-process", "subprocess", "batched"]


def in_form(form):
    return Environment(ROOMS, vectorize=form, rooms=2, size=5) if form == "batched" else echo(vectorize=form)


def inner(env):
    return monitor_of(env).venv


def zeros(env):
    return np.stack([np.zeros_like(env.action_space.sample()) for _ in range(env.num_envs)])


def firsts(env, rounds):
    """Play, and return the first observation of each copy's first episodes: copy to list."""
    seen = {copy: [observation] for copy, observation in enumerate(env.reset())}
    env.action_space.seed(0)
    while min(map(len, seen.values())) < rounds:
        observations, _, dones, _ = env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
        for copy in np.flatnonzero(dones):
            seen[copy].append(observations[copy])
    return seen


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_what_it_is_called(form):
    env = make_vec_env(in_form(form), 2, 0, 0)
    kinds = {"in-process": DummyVecEnv, "subprocess": Workers, "batched": BatchedVecEnv}
    try:
        assert isinstance(inner(env), kinds[form])
    finally:
        env.close()


def test_auto_is_batched_where_that_is_possible():
    for environment, kind in (
        (Environment(ROOMS), BatchedVecEnv),
        (Environment(ROOMS, wrappers=["toys:DoubleReward"]), DummyVecEnv),
        (Environment("CartPole-v1"), DummyVecEnv),
    ):
        env = make_vec_env(environment, 2, 0, 0)
        assert isinstance(inner(env), kind)
        env.close()


def test_batched_is_refused_where_it_is_not_possible():
    with refused("setting-conflict", where="Acrobot-v1", name="vectorize"):
        make_vec_env(Environment("Acrobot-v1", vectorize="batched"), 2, 0, 0)


@pytest.mark.parametrize("form", FORMS)
def test_an_episodes_beginning_depends_on_run_stage_purpose_copy_and_number_alone(form):
    environment = in_form(form)
    env = make_vec_env(environment, 3, run_seed=7, stage=2, purpose=Purpose.EVALUATION)
    try:
        seen = firsts(env, rounds=3)
    finally:
        env.close()

    alone = make_environment(environment)
    for copy, observations in seen.items():
        for number, observation in enumerate(observations):
            seed = episode_seed(7, 2, Purpose.EVALUATION, copy, number)
            np.testing.assert_array_equal(observation, alone.reset(seed=seed)[0])


def play(env, steps, seed):
    """Play random actions, the same for the same seed; return all that is seen."""
    draw = np.random.default_rng(seed)
    env.action_space.seed(int(draw.integers(2**31)))
    told = []
    for _ in range(steps):
        actions = np.stack([env.action_space.sample() for _ in range(env.num_envs)])
        observations, rewards, dones, _ = env.step(actions)
        told.append((observations, rewards, dones))
    return told


@pytest.mark.parametrize("sees", ["vector", "dict"])
@pytest.mark.parametrize("form", FORMS)
def test_new_copies_are_brought_back_to_where_others_are(form, sees):
    environment = in_form(form) if sees == "vector" else echo(sees=sees, acts="box", vectorize=form, steps=11)
    if form == "batched" and sees == "dict":
        environment = Environment("rlstages_envs:rlstages/PointMaze-v0", max_steps=21)
    # Far more steps than are remembered: those of ended episodes are forgotten.
    lived, anew = (monitor_of(make_vec_env(environment, 3, run_seed=7, stage=2)) for _ in range(2))
    try:
        lived.reset()
        play(lived, 305, seed=1)
        lived.take()
        state = lived.state_dict()

        observations, lost = anew.load_state_dict(state)

        assert lost == []
        assert min(state["numbers"]) > 1 and max(state["lengths"]) > 0
        np.testing.assert_equal(observations, state["observations"])
        np.testing.assert_equal(anew.state_dict(), state)
        np.testing.assert_equal(play(anew, 60, seed=2), play(lived, 60, seed=2))
        assert anew.take() == lived.take() != []
    finally:
        lived.close()
        anew.close()


def test_copies_that_cannot_be_brought_back_are_named():
    lived, anew = (monitor_of(make_vec_env(Environment("toys:Drifting"), 3, 0, 0)) for _ in range(2))
    lived.reset()
    play(lived, 4, seed=1)

    observations, lost = anew.load_state_dict(lived.state_dict())

    # The environment remembers how many episodes it has lived through, and cuts the second of new copies short.
    assert lost == [0, 1, 2]
    assert observations.shape == (3, 3)
    assert anew.lengths.tolist() == [0, 0, 0]
    play(anew, 4, seed=2)


def test_making_copies_leaves_the_global_generators_alone():
    before = np.random.get_state()[1].copy()

    make_vec_env(Environment("toys:Drawing"), 2, 0, 0).close()

    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_no_two_episodes_share_a_seed():
    seeds = {
        episode_seed(run, stage, purpose, copy, number)
        for run in range(3)
        for stage in range(3)
        for purpose in Purpose
        for copy in range(4)
        for number in range(20)
    }

    assert len(seeds) == 3 * 3 * len(Purpose) * 4 * 20
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_three_forms_of_one_environment_play_the_same_episodes():
    seen = []
    for form in FORMS:
        env = make_vec_env(Environment(ROOMS, vectorize=form, rooms=2, size=5), 3, 4, 1)
        draw = np.random.default_rng(0)
        rows = [env.reset()]
        for _ in range(120):
            observations, rewards, dones, _ = env.step(draw.integers(env.action_space.n, size=3))
            rows += [observations, rewards.astype(np.float32), dones]
        seen.append((rows, monitor_of(env).take()))
        env.close()

    for rows, episodes in seen[1:]:
        assert all(np.array_equal(one, other) for one, other in zip(seen[0][0], rows, strict=True))
        for one, other in zip(episodes, seen[0][1], strict=True):
            assert astuple(one) == pytest.approx(astuple(other))
    assert len(seen[0][1]) > 0


@pytest.mark.parametrize("form", ["in-process", "subprocess"])
def test_the_monitor_counts_returns_lengths_numbers_and_success(form):
    env = make_vec_env(echo(steps=4, vectorize=form), 2, 0, 0)
    env.reset()
    totals = np.zeros(2)
    for _ in range(4):
        _, rewards, _, _ = env.step(np.array([0, 1]))
        totals += rewards
    for _ in range(4):
        env.step(np.array([0, 1]))
    episodes = monitor_of(env).take()
    env.close()

    assert [(e.copy, e.number, e.length) for e in episodes] == [(0, 0, 4), (1, 0, 4), (0, 1, 4), (1, 1, 4)]
    assert [e.total_reward for e in episodes[:2]] == totals.tolist()
    assert all(e.success == (e.total_reward >= 3) for e in episodes)
    assert monitor_of(env).take() == []


@pytest.mark.parametrize("form", ["in-process", "subprocess"])
@pytest.mark.parametrize(
    ("fault", "field"),
    [("reward", "reward"), ("observation", "observation"), ("final observation", "observation")],
)
def test_a_number_that_is_not_finite_stops_with_environment_copy_and_step(form, fault, field):
    seed = episode_seed(3, 1, Purpose.TRAINING, 2, 1)
    faulty = echo(fault=fault, fault_seed=seed, fault_step=5, vectorize=form)
    env = make_vec_env(faulty, 4, 3, 1)
    env.reset()
    where = f"{faulty}: copy 2, step 5 of its episode 1"
    with refused("environment-failed", where=where, name=field, kind=EnvironmentFault):
        for _ in range(50):
            env.step(zeros(env))
    env.close()


def test_a_faulty_part_of_a_dictionary_is_named():
    env = make_vec_env(echo(sees="dict", fault="observation"), 2, 0, 0)
    env.reset()
    with refused(
        "environment-failed",
        where="Echo(sees='dict', fault='observation'): copy 0, step 3 of its episode 0",
        name="goal",
        kind=EnvironmentFault,
    ):
        for _ in range(5):
            env.step(zeros(env))


def test_an_observation_that_is_not_finite_is_refused_at_the_reset_too():
    env = make_vec_env(echo(), 1, 0, 0)
    inner(env).envs[0].unwrapped._show = lambda: np.full(3, np.nan, np.float32)

    with refused("environment-failed", where="Echo: copy 0, step 0 of its episode 0", kind=EnvironmentFault):
        env.reset()


@pytest.mark.parametrize(
    ("success", "expected"),
    [
        ("is_success", [None, True]),
        ("solved", [None, True]),
        ("nothing", [None, None]),
        (4.5, [False, True]),
        ("toys:hit_often", [False, True]),
    ],
)
def test_success_is_a_key_a_return_or_a_function(success, expected):
    solved = success_rule(success)
    poor = {"hits": 1} if success == "toys:hit_often" else {}
    rich = {"is_success": np.True_, "hits": 5, "solved": 1}

    assert [solved(poor, 1.0, 8), solved(rich, 5.0, 8)] == expected


def test_a_function_of_success_may_be_given_itself():
    assert success_rule(echo(success=toys.hit_often).success)({"hits": 9}, 0.0, 1) is True


def test_images_come_with_channels_first():
    env = make_vec_env(echo(sees="image"), 2, 0, 0)
    observations = env.reset()
    seen, reward, dones, infos = env.step(zeros(env))
    for _ in range(7):
        seen, reward, dones, infos = env.step(zeros(env))
    env.close()

    assert isinstance(env, VecTransposeImage)
    assert observations.shape == seen.shape == (2, 3, 36, 36)
    assert env.observation_space.shape == (3, 36, 36)
    assert infos[0]["terminal_observation"].shape == (3, 36, 36)


@pytest.mark.parametrize("form", ["in-process", "subprocess"])
@pytest.mark.parametrize(
    ("sees", "acts"),
    [(sees, "discrete") for sees in ("vector", "image", "dict", "discrete")]
    + [(sees, acts) for sees in ("vector", "dict") for acts in ("multidiscrete", "box", "multibinary")],
)
def test_all_kinds_of_spaces_can_be_stepped(form, sees, acts):
    env = make_vec_env(echo(sees=sees, acts=acts, vectorize=form), 2, 0, 0)
    observations = env.reset()
    for _ in range(10):
        observations, rewards, dones, infos = env.step(zeros(env))
    env.close()

    if sees == "dict":
        assert {key: value.shape[0] for key, value in observations.items()} == {"clock": 2, "goal": 2}
    else:
        assert len(observations) == 2
    assert rewards.shape == dones.shape == (2,)


def test_wrappers_are_applied_from_left_to_right():
    env = make_environment(echo(wrappers=[toys.DoubleReward, "gymnasium.wrappers:FlattenObservation"]))

    assert isinstance(env, gym.wrappers.FlattenObservation)
    assert isinstance(env.env, toys.DoubleReward)


def test_a_worker_finds_the_functions_of_a_curriculum_file(tmp_path):
    file = tmp_path / "own_file.py"
    file.write_text(
        textwrap.dedent(
            """
            import gymnasium as gym
            import numpy as np

            class Own(gym.Env):
                observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
                action_space = gym.spaces.Discrete(2)

                def reset(self, *, seed=None, options=None):
                    super().reset(seed=seed)
                    return np.zeros(2, np.float32), {}

                def step(self, action):
                    return np.zeros(2, np.float32), 1.0, True, False, {"much": 3}

            class Twice(gym.RewardWrapper):
                def reward(self, reward):
                    return 2 * reward

            def much(info, episode_return, length):
                return info["much"] == 3 and episode_return == 2 and length == 1
            """
        )
    )
    module = load_file(file)
    spec = Environment(module.Own, wrappers=[module.Twice], success=module.much, vectorize="subprocess")

    env = make_vec_env(spec, 2, 0, 0)
    env.reset()
    env.step(np.array([0, 1]))
    episodes = monitor_of(env).take()
    env.close()

    assert [(e.total_reward, e.success) for e in episodes] == [(2.0, True), (2.0, True)]


def test_workers_ignore_ctrl_c():
    env = make_vec_env(echo(vectorize="subprocess"), 2, 0, 0)
    try:
        env.reset()
        for process in inner(env).processes:
            os.kill(process.pid, signal.SIGINT)
        time.sleep(0.3)
        for _ in range(5):
            env.step(np.array([0, 1]))
        assert all(process.is_alive() for process in inner(env).processes)
    finally:
        env.close()


def test_a_worker_that_fails_is_named():
    seed = episode_seed(0, 0, Purpose.TRAINING, 1, 0)
    env = make_vec_env(echo(vectorize="subprocess", fault="error", fault_seed=seed), 2, 0, 0)
    env.reset()

    where = f"Echo(fault='error', fault_seed={seed}): copy 1, step 3 of its episode 0"
    with refused("environment-failed", where=where, kind=Fault) as caught:
        for _ in range(5):
            env.step(np.array([0, 1]))
    env.close()

    assert "toys.py" in caught.value.trace and 'RuntimeError("the motor is stuck")' in caught.value.trace
    assert not any(process.is_alive() for process in inner(env).processes)


def test_a_worker_that_is_killed_is_named_with_the_signal():
    env = make_vec_env(echo(vectorize="subprocess"), 3, 0, 0)
    env.reset()
    os.kill(inner(env).processes[2].pid, signal.SIGKILL)

    with refused("environment-failed", where="Echo: copy 2, step 1 of its episode 0", kind=Fault):
        for _ in range(5):
            env.step(np.array([0, 1, 2]))
    env.close()

    assert not any(process.is_alive() for process in inner(env).processes)


def test_copies_in_this_process_leave_ctrl_c_as_it_was():
    before = signal.getsignal(signal.SIGINT)
    env = make_vec_env(echo(), 2, 0, 0)
    env.close()

    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (Environment("CartPol-v1"), ("name-unknown", "", "environment")),
        (Environment("CartPole-v9"), ("name-unknown", "", "environment")),
        (Environment("nowhere:Some-v0"), ("import-failed", "nowhere", "nowhere")),
        (Environment("toys:Ecko"), ("name-unknown", "toys", "Ecko")),
        (Environment("toys:WORD"), ("environment-invalid", "toys:WORD", "")),
        (Environment("toys:not_an_environment"), ("environment-invalid", "not_an_environment", "")),
        (Environment("toys:fails_when_made"), ("environment-invalid", "fails_when_made", "")),
        (echo(hue=3), ("environment-invalid", "Echo(hue=3)", "")),
        (echo(wrappers=["toys:refuse_to_wrap"]), ("environment-invalid", "Echo", "wrappers")),
    ],
    ids=lambda value: str(value) if isinstance(value, Environment) else "",
)
def test_what_cannot_be_made_is_refused_in_one_sentence(environment, sentence):
    with refused(*sentence):
        make_environment(environment)


def test_a_module_that_fails_when_it_is_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise OSError('no display')")
    monkeypatch.syspath_prepend(tmp_path)

    with refused("import-failed", where="broken_module"):
        make_environment(Environment("broken_module:Some-v0"))


def test_discrete_observations_are_whole_numbers():
    env = make_vec_env(echo(sees="discrete"), 3, 0, 0)

    assert isinstance(env.observation_space, spaces.Discrete)
    assert env.reset().dtype.kind == "i"
    env.close()


@pytest.mark.parametrize("acts", ["box", "multidiscrete"])
@pytest.mark.parametrize("form", ["in-process", "subprocess"])
def test_a_copy_that_has_just_begun_comes_back_beside_one_that_has_not(form, acts):
    # Copy 0 has ended an episode with the last step, and there are no actions of its next one.
    environment = Environment("toys:Uneven", acts=acts, vectorize=form)
    lived, anew = (monitor_of(make_vec_env(environment, 4, 3, 0)) for _ in range(2))
    try:
        lived.reset()
        while not (lived.lengths.min() == 0 < lived.lengths.max()):
            play(lived, 1, seed=1)
        lived.take()

        _, lost = anew.load_state_dict(lived.state_dict())

        assert lost == []
        np.testing.assert_equal(play(anew, 60, seed=2), play(lived, 60, seed=2))
    finally:
        lived.close()
        anew.close()
