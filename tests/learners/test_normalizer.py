"""Observation statistics that live inside the policy."""

import numpy as np
import pytest
import torch
from building import UNREACHED, agent, cloning, curriculum, echo, learner_for, payloads, tuning
from gymnasium import spaces

from rlstages import Environment, Expert, train
from rlstages.events import Warned
from rlstages.learners.normalizer import CLIP, EPSILON, Standardizer, is_vector, normalizer_of


def test_absorbing_in_pieces_is_absorbing_at_once():
    rows = np.random.default_rng(0).normal([1.0, -30.0], [2.0, 0.1], (500, 2))
    pieces = Standardizer((2,))

    for piece in np.split(rows, [3, 10, 11, 200]):
        pieces.absorb(piece)

    assert pieces.mean.numpy() == pytest.approx(rows.mean(axis=0), rel=1e-5)
    assert pieces.var.numpy() == pytest.approx(rows.var(axis=0), rel=1e-4)
    assert pieces.count.item() == 500


def test_before_anything_is_absorbed_nothing_is_changed():
    seen = torch.tensor([[1.0, -2.0]])

    torch.testing.assert_close(Standardizer((2,))(seen), seen)


def test_standardised_numbers_are_clipped():
    standardizer = Standardizer((1,))
    standardizer.absorb(np.array([[0.0], [1.0]]))

    assert standardizer(torch.tensor([[1e9]])).item() == CLIP
    assert standardizer(torch.tensor([[-1e9]])).item() == -CLIP


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, -1e6, 1e-9])
def test_what_has_never_varied_counts_as_0_whatever_it_is(value):
    standardizer = Standardizer((1,))
    for _ in range(3):
        standardizer.absorb(np.full((50, 1), value))

    for seen in (value, value + 0.1, -1e9):
        assert standardizer(torch.tensor([[seen]])).item() == 0.0
    assert standardizer.constant().tolist() == [[0]]


def test_statistics_of_an_input_begin_where_it_first_varies():
    draw = np.random.default_rng(0)
    standardizer = Standardizer((2,))
    for _ in range(100):
        standardizer.absorb(np.stack([draw.normal(3, 2, 500), np.zeros(500)], axis=1))
    later = draw.normal([3, 40], [2, 9], (500, 2))

    standardizer.absorb(later)

    assert standardizer.constant().tolist() == []
    assert standardizer.mean[1] == pytest.approx(later[:, 1].mean(), rel=1e-5)
    assert standardizer.var[1] == pytest.approx(later[:, 1].var(), rel=1e-5)
    assert standardizer.var[0] == pytest.approx(4.0, rel=0.02)


def test_what_varies_is_standardised_to_the_same_bits_as_ever():
    scales = np.array([1.0, 1e-3, 1e5, 1e-6])
    rows = np.random.default_rng(0).normal(scales, scales, (300, 4))
    standardizer = Standardizer((4,))
    for piece in np.split(rows, 3):
        standardizer.absorb(piece)

    seen = torch.as_tensor(rows[:20], dtype=torch.float32)
    expected = ((seen - standardizer.mean) / torch.sqrt(standardizer.var + EPSILON)).clamp(-CLIP, CLIP)
    assert torch.equal(standardizer(seen), expected)
    assert set(standardizer.state_dict()) == {"mean", "var", "count"}


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_both_engines_take_what_has_never_varied_for_0(engine):
    learner = learner_for(echo(), agent(normalize_observations=True, engine=engine))
    rows = np.random.default_rng(0).normal(0, 0.3, (200, 3))
    rows[:, 1] = 0.25
    normalizer_of(learner.policy).absorb(rows)
    seen = np.random.default_rng(1).normal(0, 0.3, (4, 3)).astype(np.float32)
    other = seen.copy()
    other[:, 1] += 5.0

    acted = [[learner.algorithm.player(seed, False)(shown).tolist() for seed in range(9)] for shown in (seen, other)]

    assert acted[0] == acted[1]
    assert torch.equal(*(learner.policy.extract_features(torch.as_tensor(shown)) for shown in (seen, other)))


def test_inputs_that_have_not_varied_are_named():
    one = learner_for(echo(), agent(normalize_observations=True))
    keyed = learner_for(echo(sees="dict"), agent(policy="MultiInputPolicy", normalize_observations=True))
    rows = np.random.default_rng(0).normal(0, 1, (50, 3))
    normalizer_of(one.policy).absorb(rows * [1, 0, 0])
    normalizer_of(keyed.policy).absorb({"goal": rows * [0, 1, 1], "clock": np.full((50, 1), 0.5)})

    assert "inputs 1, 2 have not varied" in normalizer_of(one.policy).constants()
    assert "inputs clock[0], goal[0] have not varied" in normalizer_of(keyed.policy).constants()
    normalizer_of(one.policy).absorb(rows)
    assert normalizer_of(one.policy).constants() is None


def test_inputs_that_have_not_varied_are_told_of_once(here):
    calm, windy = Environment("toys:Windy"), Environment("toys:Windy", wind=1.0)
    shown = cloning(environment=calm, expert=Expert("toys:any_move", episodes=4))
    tuned = [tuning(str(i), where, until=UNREACHED, max_steps=1_000) for i, where in enumerate((calm, windy))]
    for place, stages in (("cloned", [shown, tuned[0]]), ("not cloned", tuned[:1]), ("windy", tuned[1:])):
        train(curriculum(*stages, normalize_observations=True), out=place)

    told = {place: payloads(place, Warned) for place in ("cloned", "not cloned", "windy")}
    assert ["input 2 has not varied" in warned.message for warned in told["cloned"]] == [True]
    assert ["Windy: Of the observations, input 2" in warned.message for warned in told["not cloned"]] == [True]
    assert told["windy"] == []


def test_vectors_of_a_dictionary_are_standardised_by_key_and_by_nothing_else():
    learner = learner_for(echo(sees="dict"), agent(policy="MultiInputPolicy", normalize_observations=True))
    normalizer = normalizer_of(learner.policy)
    goals = np.random.default_rng(0).normal(5, 3, (200, 3))

    normalizer.absorb({"goal": goals, "clock": np.full((200, 1), 0.25)})

    statistics = {name: part.mean.numpy() for name, part in normalizer.standardizers.items()}
    assert statistics["obs_goal"] == pytest.approx(goals.mean(axis=0), rel=1e-4)
    assert statistics["obs_clock"] == pytest.approx([0.25])


def test_statistics_travel_with_the_weights():
    one = learner_for(echo(), agent(normalize_observations=True), seed=1)
    other = learner_for(echo(), agent(normalize_observations=True), seed=2)
    normalizer_of(one.policy).absorb(np.random.default_rng(0).normal(5, 3, (200, 3)))

    other.load_policy(one.weights())

    seen = np.random.default_rng(1).normal(5, 3, (20, 3)).astype(np.float32)
    actions = [learner.policy.predict(seen, deterministic=True)[0] for learner in (one, other)]
    assert np.array_equal(*actions)


def test_gradients_do_not_move_the_statistics():
    learner = learner_for(echo(), agent(normalize_observations=True))

    names = {name for name, _ in learner.policy.named_parameters()}

    assert not any("standardizers" in name for name in names)
    assert any("standardizers" in name for name in learner.weights())


def test_images_and_whole_numbers_are_no_vectors():
    assert is_vector(spaces.Box(-1, 1, (3,), np.float32))
    assert not is_vector(spaces.Box(0, 255, (3, 36, 36), np.uint8))
    assert not is_vector(spaces.Discrete(4))
    assert normalizer_of(learner_for(echo()).policy) is None
