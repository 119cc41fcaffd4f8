"""Observation statistics that live inside the policy."""

import numpy as np
import pytest
import torch
from building import agent, echo, learner_for
from gymnasium import spaces

from rlstages.learners.normalizer import CLIP, Standardizer, is_vector, normalizer_of


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


def test_a_constant_does_not_become_nan():
    standardizer = Standardizer((1,))
    standardizer.absorb(np.full((50, 1), 7.0))

    assert standardizer(torch.tensor([[7.0]])).item() == 0.0
    assert torch.isfinite(standardizer(torch.tensor([[7.1]]))).all()


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
