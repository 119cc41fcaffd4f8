"""The one object that owns the policy: saved, restored, refused when it does not fit."""

import numpy as np
import pytest
import torch
from building import agent, echo, learner_for
from gymnasium import spaces
from refusing import refused
from safetensors.torch import load_file
from stable_baselines3.common.torch_layers import NatureCNN

from rlstages.learners.fit import require_fit
from rlstages.learners.learner import Learner, read_policy
from rlstages.storage.checkpoints import read_checkpoint, sha256, write_checkpoint

VECTOR, ACTION = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3)
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)


def learn_a_little(learner):
    """Give the optimiser moments that are worth keeping."""
    for _ in range(3):
        seen, _ = learner.policy.obs_to_tensor(np.ones((4, *learner.policy.observation_space.shape), np.float32))
        loss = learner.policy.get_distribution(seen).entropy().mean() + learner.policy.predict_values(seen).mean()
        learner.policy.optimizer.zero_grad()
        loss.backward()
        learner.policy.optimizer.step()


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_a_checkpoint_brings_back_weights_optimiser_counters_and_random_states(algorithm, tmp_path):
    who = agent() if algorithm == "PPO" else agent(algorithm="A2C", batch_size=None, n_epochs=None)
    learner = learner_for(echo(), who)
    learn_a_little(learner)
    learner.trust()
    learn_a_little(learner)
    learner.global_step, learner.objective = 123, "cloning"
    write_checkpoint(tmp_path, "1", learner.state_dict())
    draws = torch.rand(3), np.random.rand(3)
    learn_a_little(learner)

    other = learner_for(echo(), who, seed=9)
    other.load_state_dict(read_checkpoint(tmp_path / "1"))
    again = torch.rand(3), np.random.rand(3)
    learn_a_little(other)

    assert torch.equal(draws[0], again[0]) and np.array_equal(draws[1], again[1])
    assert (other.global_step, other.objective) == (123, "cloning")
    assert all(torch.equal(value, other.weights()[name]) for name, value in learner.weights().items())
    assert all(torch.equal(value, other.trusted[name]) for name, value in learner.trusted.items())
    assert not torch.equal(learner.trusted["action_net.weight"], learner.weights()["action_net.weight"])


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    one, same, other = (learner_for(echo(), seed=seed).weights()["action_net.weight"] for seed in (1, 1, 2))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_weights_are_loaded_into_the_same_object():
    learner, other = learner_for(echo(), seed=1), learner_for(echo(), seed=2)
    policy, parameters = learner.policy, list(learner.policy.parameters())

    learner.load_policy(other.weights())

    assert learner.policy is policy
    assert all(one is two for one, two in zip(parameters, learner.policy.parameters(), strict=True))
    assert all(torch.equal(value, learner.weights()[name]) for name, value in other.weights().items())


def test_a_saved_policy_can_be_read_back_and_its_digest_is_that_of_the_file(tmp_path):
    learner = learner_for(echo())
    file = tmp_path / "deep" / "policy.safetensors"

    digest = learner.save_policy(file)

    assert digest == sha256(file.read_bytes())
    assert all(torch.equal(value, load_file(file)[name]) for name, value in learner.weights().items())
    assert read_policy(file).keys() == learner.weights().keys()


@pytest.mark.parametrize(
    ("who", "environment", "sentence"),
    [
        (agent(network=(8,)), echo(), ("policy-misfit", "", "mlp_extractor.policy_net.0.weight")),
        (agent(network=(16, 16)), echo(), ("policy-misfit", "", "mlp_extractor.policy_net.2.bias")),
        (
            agent(normalize_observations=True),
            echo(),
            ("policy-misfit", "", "features_extractor.standardizers.obs_.count"),
        ),
        (agent(), echo(acts="box"), ("policy-misfit", "", "log_std")),
    ],
)
def test_the_policy_of_another_network_is_refused_and_nothing_is_changed(who, environment, sentence):
    learner = learner_for(environment, who)
    before = learner.weights()

    with refused(*sentence):
        learner.load_policy(learner_for(echo()).weights())

    assert all(torch.equal(value, before[name]) for name, value in learner.weights().items())


def test_a_policy_file_that_is_missing_or_damaged_is_refused(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x10\0\0\0\0\0\0\0not json at all")

    with refused("file-missing", where="none.safetensors"):
        read_policy(tmp_path / "none.safetensors")
    with refused("file-damaged", where="damaged.safetensors"):
        read_policy(damaged)


def test_the_anchor_is_a_frozen_copy_that_draws_no_random_number():
    learner = learner_for(echo(), agent(normalize_observations=True))
    assert learner.reference_policy() is None
    learner.trust()
    state = torch.get_rng_state()

    frozen = learner.reference_policy()

    assert torch.equal(state, torch.get_rng_state())
    assert frozen is not learner.policy
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    learn_a_little(learner)
    assert all(torch.equal(value, learner.trusted[name]) for name, value in frozen.state_dict().items())


def test_rebuilding_the_optimiser_forgets_its_moments_and_keeps_its_kind():
    for who in (agent(), agent(algorithm="A2C", batch_size=None, n_epochs=None)):
        learner = learner_for(echo(), who)
        learn_a_little(learner)
        kind, settings = type(learner.policy.optimizer), learner.policy.optimizer.defaults["eps"]
        assert learner.policy.optimizer.state

        learner.algorithm.rebuild_optimizers()

        assert type(learner.policy.optimizer) is kind
        assert learner.policy.optimizer.defaults["eps"] == settings == 1e-5
        assert not learner.policy.optimizer.state


def box(low, high):
    return spaces.Box(np.array(low, np.float64), np.array(high, np.float64), dtype=np.float64)


def parts(**more):
    return spaces.Dict({"v": VECTOR, **more})


@pytest.mark.parametrize(
    ("policy", "observation", "action", "more", "sentence"),
    [
        ("MlpPolicy", spaces.Dict({"a": VECTOR}), ACTION, {}, ("setting-conflict", "Agent", "policy")),
        ("MultiInputPolicy", VECTOR, ACTION, {}, ("setting-conflict", "Agent", "policy")),
        ("CnnPolicy", VECTOR, ACTION, {}, ("setting-conflict", "Agent", "policy")),
        ("CnnPolicy", spaces.Box(0, 255, (3, 7, 7), np.uint8), ACTION, {}, ("setting-conflict", "Agent", "policy")),
        (
            "MlpPolicy",
            spaces.Discrete(3),
            ACTION,
            {"normalize_observations": True},
            ("setting-conflict", "Agent", "normalize_observations"),
        ),
        (
            "CnnPolicy",
            IMAGE,
            ACTION,
            {"normalize_observations": True},
            ("setting-conflict", "Agent", "normalize_observations"),
        ),
        ("MlpPolicy", VECTOR, spaces.Box(-np.inf, 1, (2,)), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Discrete(3, start=1), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", spaces.Discrete(3, start=-1), ACTION, {}, ("spaces-unsupported", "observations", "")),
        ("MlpPolicy", VECTOR, spaces.Tuple([ACTION]), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Box(0, 4, (2,), np.int32), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Box(-1, 1, (1,), np.int8), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Box(0, 2**62, (1,), np.uint64), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Box(0, 1, (2, 2), np.bool_), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.MultiBinary([2, 2]), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.MultiBinary((3,)), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.MultiDiscrete([[2, 3], [3, 2]]), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Box(-1, 1, (0,)), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Box(-3e38, 3e38, (1,)), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, box([0, 0], [1, 1e13]), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, box([[0], [1e9]], [[1], [1e9 + 1]]), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", VECTOR, spaces.Box(1e3, 1e3 + 100, (1,), np.float16), {}, ("spaces-unsupported", "actions", "")),
        ("MlpPolicy", spaces.Box(-1, 1, ()), ACTION, {}, ("spaces-unsupported", "observations", "")),
        ("MlpPolicy", spaces.Box(-1, 1, (0,)), ACTION, {}, ("spaces-unsupported", "observations", "")),
        ("MlpPolicy", spaces.MultiDiscrete([[2], [3]]), ACTION, {}, ("spaces-unsupported", "observations", "")),
        (
            "MultiInputPolicy",
            parts(x=spaces.Discrete(3, start=2)),
            ACTION,
            {},
            ("spaces-unsupported", "observations", "x"),
        ),
        (
            "MultiInputPolicy",
            parts(x=spaces.MultiDiscrete([[2], [3]])),
            ACTION,
            {},
            ("spaces-unsupported", "observations", "x"),
        ),
        (
            "MultiInputPolicy",
            parts(x=spaces.Box(0, 255, (3, 7, 7), np.uint8)),
            ACTION,
            {},
            ("spaces-unsupported", "observations", "x"),
        ),
        ("MultiInputPolicy", parts(x=spaces.Box(-1, 1, ())), ACTION, {}, ("spaces-unsupported", "observations", "x")),
        ("MultiInputPolicy", spaces.Dict({"a.b": VECTOR}), ACTION, {}, ("spaces-unsupported", "observations", "a.b")),
        ("MultiInputPolicy", parts(items=VECTOR), ACTION, {}, ("spaces-unsupported", "observations", "items")),
        ("MultiInputPolicy", spaces.Dict({}), ACTION, {}, ("spaces-unsupported", "observations", "")),
    ],
)
def test_spaces_that_the_policy_cannot_take_are_refused(policy, observation, action, more, sentence):
    who = agent(policy=policy, **more)

    with refused(*sentence):
        require_fit(who, observation, action)
    with refused(*sentence):
        Learner(who, observation, action, 0)


def test_networks_are_what_the_agent_says():
    relu = learner_for(echo(), agent(network=(5, 7), activation="relu")).policy
    linear = learner_for(echo(), agent(network=())).policy
    image = Learner(agent(policy="CnnPolicy"), IMAGE, ACTION, 0).policy

    assert [layer.out_features for layer in relu.mlp_extractor.policy_net if hasattr(layer, "out_features")] == [5, 7]
    assert isinstance(relu.mlp_extractor.value_net[1], torch.nn.ReLU)
    assert len(linear.mlp_extractor.policy_net) == 0
    assert isinstance(image.features_extractor, NatureCNN)
