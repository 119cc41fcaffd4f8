"""Episodes start with a seed, options and a prefix of actions, in every form of an environment, and after a resume."""

import numpy as np
import pytest
from building import RESETS_ITSELF, VECTOR_CARTPOLE
from gymnasium import spaces
from refusing import refused

from rlstages import BatchedEnv, Environment
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.reports import EnvironmentFault
from rlstages.environments.seeding import OWN_START, EpisodeStart, Purpose, episode_seed
from rlstages.play.play import play_episodes
from rlstages.specs.criteria.episodes import Episode, episodes_of, rows_of
from rlstages.specs.plain import thaw
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint

HERE = __name__
FORMS = ["in-process", "subprocess", "batched"]
STEPS = 9


class Drift(BatchedEnv):
    """Drifts by its seed, from where its options say; ends after `STEPS` steps."""

    single_observation_space = spaces.Box(-1e6, 1e6, (2,), np.float64)
    single_action_space = spaces.Box(-10.0, 10.0, (1,), np.float32)

    def __init__(self, num_envs):
        self.place, self.drift, self.time = (np.zeros(num_envs) for _ in range(3))
        super().__init__(num_envs)

    def start(self, copies, seeds, options=()):
        self.place[copies] = [given.get("at", 0.0) for given in options] if options else 0.0
        self.drift[copies] = (seeds % 1000) / 7
        self.time[copies] = 0

    def advance(self, actions):
        self.place += self.drift + actions[:, 0]
        self.time += 1
        over = self.time >= STEPS
        return self.place.copy(), np.zeros(self.num_envs, bool), over, {"is_success": over & (self.place > 500)}

    def observe(self, copies=slice(None)):
        return np.stack([self.place, self.time], axis=1)[copies]


class Stubborn(Drift):
    """Takes no options."""

    def start(self, copies, seeds):
        super().start(copies, seeds)


def drift(form="in-process", name="Drift"):
    return Environment(f"{HERE}:{name}", vectorize=form)


def copies(environment, number=2):
    return monitor_of(make_vec_env(environment, number, 3, 1))


def actions(steps, number, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, number, 1)).astype(np.float32)


def by_hand(seed, start, acted):
    """What the policy sees of one episode: its observations and rewards."""
    env = make_environment(drift())
    seen, _ = env.reset(seed=seed, options=dict(start.options))
    for action in start.prefix:
        seen, *_ = env.step(np.array(action, np.float32))
    told, over = [(seen, 0.0)], False
    for action in acted:
        assert not over
        seen, reward, _, over, _ = env.step(action)
        told.append((seen, np.float32(reward)))
    assert over
    return told


STARTS = [EpisodeStart(options={"at": 100.0}, prefix=((0.1,), (0.7,))), EpisodeStart(77, {"at": -5})]
IN_BATCHES = [EpisodeStart(options={"at": 100.0}), STARTS[1]]


@pytest.mark.parametrize("form", FORMS)
def test_an_episode_is_what_the_environment_does_by_hand(form):
    starts = IN_BATCHES if form == "batched" else STARTS
    env = copies(drift(form))
    try:
        env.begin_with(starts)
        told = [[(seen, 0.0)] for seen in env.reset()]
        acted, ends = [[], []], [[], []]
        for row in actions(3 * STEPS, 2):
            seen, rewards, dones, infos = env.step(row.copy())
            for copy in range(2):
                acted[copy].append(row[copy])
                last = infos[copy]["terminal_observation"] if dones[copy] else seen[copy]
                told[copy].append((last, rewards[copy]))
                if dones[copy]:
                    ends[copy].append((told[copy], acted[copy]))
                    told[copy], acted[copy] = [(seen[copy], 0.0)], []
        episodes = env.take()
    finally:
        env.close()

    assert min(map(len, ends)) >= 3
    for copy, start in enumerate(starts):
        own = [episode for episode in episodes if episode.copy == copy]
        assert [episode.level for episode in own] == [start.options] * len(ends[copy])
        for number, (seen, done) in enumerate(ends[copy]):
            seed = start.seed or episode_seed(3, 1, Purpose.TRAINING, copy, number)
            expected = by_hand(seed, start, done)
            np.testing.assert_equal(seen, expected)
            # The steps of the prefix are the environment's, and not the policy's.
            assert own[number].length == STEPS - len(start.prefix) == len(done)
            assert own[number].total_reward == pytest.approx(sum(float(reward) for _, reward in expected))
            assert own[number].began == sum(len(earlier) for _, earlier in ends[copy][:number])


@pytest.mark.parametrize("form", FORMS)
def test_a_start_holds_from_the_next_episode_on_until_another_is_given(form):
    env = copies(drift(form))
    try:
        env.reset()
        env.step(actions(1, 2)[0])
        env.begin_with([EpisodeStart(options={"at": 5}), OWN_START])
        for row in actions(2 * STEPS, 2):
            env.step(row)
        env.begin_with([OWN_START] * 2)
        for row in actions(STEPS, 2):
            env.step(row)
        levels = [[episode.level for episode in env.take() if episode.copy == 0]]
    finally:
        env.close()

    assert levels == [[None, {"at": 5}, {"at": 5}]]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_interrupted_in_an_episode_with_options_and_prefix_goes_on_identically(form, tmp_path):
    starts = IN_BATCHES if form == "batched" else STARTS
    lived, anew = copies(drift(form)), copies(drift(form))
    try:
        lived.reset()
        lived.begin_with(starts)
        for row in actions(STEPS + 4, 2):
            lived.step(row)
        # What comes after the episodes under way is something else again.
        lived.begin_with([EpisodeStart(options={"at": 9}), OWN_START])
        lived.take()
        state = lived.state_dict()
        state = read_checkpoint(write_checkpoint(tmp_path, "0", state))

        observations, lost = anew.load_state_dict(state)

        assert lost == [] and anew.lengths.tolist() == lived.lengths.tolist() == [4, 4]
        np.testing.assert_equal(observations, state["observations"])
        np.testing.assert_equal(anew.state_dict(), lived.state_dict())
        for row in actions(3 * STEPS, 2, seed=1):
            np.testing.assert_equal(anew.step(row), lived.step(row))
        ended = anew.take()
        assert ended == lived.take() and [episode.level for episode in ended[:2]] == [{"at": 100.0}, {"at": -5}]
        assert {episode.level for episode in ended[2:]} == {EpisodeStart(options={"at": 9}).options, None}
    finally:
        lived.close()
        anew.close()


@pytest.mark.parametrize("form", ["in-process", "subprocess"])
def test_a_prefix_that_ends_the_episode_is_a_fault(form):
    env = copies(drift(form))
    try:
        env.begin_with([OWN_START, EpisodeStart(prefix=((0.0,),) * (STEPS + 2))])
        with refused("environment-failed", kind=EnvironmentFault):
            env.reset()
    finally:
        env.close()


def test_what_is_not_possible_is_one_sentence():
    batch, stubborn = copies(drift("batched")), copies(drift("batched", "Stubborn"))
    prefixed = [EpisodeStart(prefix=((1.0,),)), OWN_START]
    with refused("setting-conflict", name="vectorize"):
        batch.begin_with(prefixed)
    with refused("setting-conflict", name="options"):
        stubborn.begin_with(IN_BATCHES)
    stubborn.set_options({"at": 1})
    with refused("setting-conflict", name="options"):
        stubborn.reset()
    with refused("setting-conflict", name="options"):
        make_environment(drift(name="Stubborn")).reset(seed=0, options={"at": 1})
    for prefix in (((11.0,),), ((1.0, 2.0),), ("up",)):
        with refused("setting-range", where="EpisodeStart", name="prefix"):
            copies(drift()).begin_with([EpisodeStart(prefix=prefix), OWN_START])
    for options in ({"at": {1, 2}}, {"at": np.zeros(3)}, {"at": np.nan}, {1: 2}, [1]):
        with refused("setting-type", where="EpisodeStart", name="options"):
            EpisodeStart(0, options)
    # Nothing was changed by what was refused.
    np.testing.assert_array_equal(batch.reset()[:, 0], 0.0)


@pytest.mark.skipif(not RESETS_ITSELF, reason="this gymnasium has none")
def test_a_batch_that_resets_itself_starts_as_it_likes():
    env = copies(Environment(VECTOR_CARTPOLE))
    with refused("setting-conflict", name="vectorize"):
        env.begin_with([EpisodeStart(5), OWN_START])


class Still:
    def player(self, seed, deterministic):
        return lambda observations: np.zeros((len(observations), 1), np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_a_policy_is_evaluated_from_a_start(form):
    env = make_vec_env(drift(form), 3, 0, 0, Purpose.EVALUATION)
    start = EpisodeStart(options={"at": 50}, prefix=() if form == "batched" else ((1.0,),))
    try:
        plain, high, again = (
            play_episodes(Still(), env, 5, 0, 0, True, given) for given in (OWN_START, start, OWN_START)
        )
    finally:
        env.close()

    assert plain == again and {episode.level for episode in plain} == {None}
    assert [episode.level for episode in high] == [{"at": 50}] * 6
    seed = episode_seed(0, 0, Purpose.EVALUATION, 0, 0)
    for copy, episode in enumerate(high[:3]):
        told = by_hand(seed + copy, start, np.zeros((STEPS - len(start.prefix), 1), np.float32))
        assert episode.total_reward == sum(float(reward) for _, reward in told)


def test_options_that_stable_baselines3_sets_hold_for_one_reset():
    for form in FORMS:
        env = copies(drift(form))
        try:
            env.set_options([{"at": 10}, {}])
            assert env.reset()[:, 0].tolist() == [10.0, 0.0]
            assert env.reset()[:, 0].tolist() == [0.0, 0.0]
        finally:
            env.close()


def test_a_start_is_plain_data():
    start = EpisodeStart(np.int64(3), {"a": [1, {"b": 2}]}, (np.array([0.1], np.float32), [1]))

    again = EpisodeStart.from_data(start.to_data())
    assert start == again and hash(start) == hash(again)
    assert start.prefix[0] == (float(np.float32(0.1)),) and thaw(start.level) == {"a": [1, {"b": 2}]}
    assert EpisodeStart(3).to_data() == {"seed": 3} and EpisodeStart(3).level is None


def test_levels_are_kept_with_episodes_and_rows_without_one_are_as_they_were():
    plain, level = Episode(0, 1, 2.0, 3, None, 4), EpisodeStart(options={"a": [1]}).level
    rows = rows_of([plain, Episode(0, 1, 2.0, 3, True, 4, level)])

    assert rows == [[0, 1, 2.0, 3, None, 4], [0, 1, 2.0, 3, True, 4, {"a": [1]}]]
    assert episodes_of(rows) == [plain, Episode(0, 1, 2.0, 3, True, 4, level)]
