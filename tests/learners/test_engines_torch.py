"""The torch engine does what stable-baselines3 does, to the last bit, and the anchor's term is what it says."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from building import agent, echo, learner_for, mostly_slow, tuning
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refused
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from stepping import context_for
from toys import tell

from rlstages import Environment, Expert
from rlstages.demonstrations.fitting import place_demonstrations
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.seeding import EpisodeSeeds, Purpose, SeededEpisodes
from rlstages.learners.algorithms.base import DemonstrationLoss, ReferenceKL
from rlstages.learners.algorithms.on_policy.protocol import LossNotFinite, critic_parameters
from rlstages.learners.algorithms.on_policy.rollout import collect
from rlstages.learners.algorithms.on_policy.torch.heads import torch_head
from rlstages.play.recording import record
from rlstages.stages.cloning_epochs import measure
from rlstages.stages.fine_tuning.runner import FineTuningRunner

CARTPOLE = Environment("CartPole-v1")
CLIMB = Environment("MountainCarContinuous-v0")
"""Acts in [-1, 1], as stable-baselines3 does by itself."""
BOX = echo(acts="box")
MULTIDISCRETE = echo(acts="multidiscrete")
MULTIBINARY = echo(acts="multibinary")
SEEDS = [11, 12]


def seeded_copies(environment, n_envs):
    """Copies behind stock stable-baselines3, whose episodes have the seeds that ours have."""

    seeds = [EpisodeSeeds(5, 0, Purpose.TRAINING, i) for i in range(n_envs)]
    return DummyVecEnv([lambda s=s: SeededEpisodes(make_environment(environment), s) for s in seeds])


def stock(environment, who, seed, rollouts):
    """Train with stable-baselines3's own learn()."""
    settings = dict(who.settings())
    make = {"PPO": PPO, "A2C": A2C}[who.algorithm.name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You have specified a mini-batch size", UserWarning)
        made = make_stock(make, environment, who, seed, settings)
    made.set_logger(Logger(None, []))
    # Before its release 2.3 the ends of episodes are booleans there, which turn the sums of the last step into float64.
    buffer, sums = made.rollout_buffer, made.rollout_buffer.compute_returns_and_advantage
    buffer.compute_returns_and_advantage = lambda last_values, dones: sums(last_values, dones.astype(np.float32))
    # It has asked for seeds of its own for the first episodes.
    getattr(made.env, "venv", made.env)._reset_seeds()
    started = weights(made.policy)
    made.learn(rollouts * who.rollout_steps)
    return started, weights(made.policy)


def make_stock(make, environment, who, seed, settings):
    return make(
        who.policy,
        seeded_copies(environment, who.n_envs),
        n_steps=who.algorithm.n_steps,
        gamma=who.algorithm.gamma,
        gae_lambda=who.algorithm.gae_lambda,
        policy_kwargs={
            "net_arch": {"pi": list(who.network), "vf": list(who.network)},
            "activation_fn": {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[who.activation],
            **({"log_std_init": who.log_std_init} if environment == BOX else {}),
        },
        seed=seed,
        device="cpu",
        **settings,
    )


def ours(environment, who, seed, rollouts):
    """Train with our own loop."""
    learner = learner_for(environment, replace(who, engine="torch"), seed)
    started = weights(learner.policy)
    env = make_vec_env(environment, who.n_envs, 5, 0)
    model = learner.algorithm.model
    model.set_env(env)
    model._setup_learn(1, reset_num_timesteps=False)
    for _ in range(rollouts):
        learner.algorithm.update(learner.algorithm.collect(env), who.settings())
    env.close()
    return started, weights(learner.policy)


def weights(policy):
    return {name: value.detach().clone() for name, value in policy.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("seed", mostly_slow(SEEDS, 1))
@pytest.mark.parametrize("environment", [CARTPOLE, BOX, MULTIDISCRETE, MULTIBINARY], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"ent_coef": 0.0},
        {"ent_coef": 0.02, "target_kl": 0.001},
        {"clip_range_vf": 0.02},
        {"batch_size": 48, "vf_coef": 0.7, "max_grad_norm": 0.1, "gae_lambda": 0.8},
    ],
    ids=["plain", "target_kl", "clipped values", "uneven batches"],
)
def test_ppo_is_stable_baselines3_to_the_last_bit(environment, settings, seed):
    who = agent(**{"learning_rate": 1e-3, **settings})

    started, ended = stock(environment, who, seed, rollouts=4)
    our_start, our_end = ours(environment, who, seed, rollouts=4)

    assert same(started, our_start)
    assert same(ended, our_end)
    assert not same(started, ended)


@pytest.mark.parametrize("network", [(), (16, 8, 4)], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_so_it_is_with_other_layers(activation, network):
    who = agent(learning_rate=1e-3, activation=activation, network=network, ent_coef=0.01)

    started, ended = stock(CARTPOLE, who, 11, rollouts=4)

    assert same(ended, ours(CARTPOLE, who, 11, rollouts=4)[1])
    assert not same(started, ended)


@pytest.mark.parametrize(
    ("sees", "policy"), [("discrete", "MlpPolicy"), ("dict", "MultiInputPolicy"), ("image", "CnnPolicy")]
)
def test_so_it_is_with_features_that_are_no_vectors_or_learn(sees, policy):
    environment, who = echo(sees=sees), agent(learning_rate=1e-3, policy=policy, n_epochs=2)

    started, ended = stock(environment, who, 11, rollouts=2)

    assert same(ended, ours(environment, who, 11, rollouts=2)[1])
    assert not same(started, ended)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("environment", [CARTPOLE, BOX, MULTIDISCRETE], ids=str)
def test_a2c_is_stable_baselines3_to_the_last_bit(environment, seed):
    who = agent(algorithm="A2C", n_steps=8, batch_size=None, n_epochs=None, ent_coef=0.01)

    started, ended = stock(environment, who, seed, rollouts=6)
    our_start, our_end = ours(environment, who, seed, rollouts=6)

    assert same(started, our_start)
    assert same(ended, our_end)
    assert not same(started, ended)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
@pytest.mark.parametrize("environment", [CARTPOLE, CLIMB, MULTIDISCRETE], ids=str)
def test_hundreds_of_updates_are_stable_baselines3s_to_the_last_bit(environment, algorithm):
    """Networks of the usual width; 1,024 or 400 gradient steps."""
    if algorithm == "PPO":
        who, rollouts = agent(network=(64, 64), n_steps=64, batch_size=64, n_epochs=8, learning_rate=3e-4), 32
    else:
        who, rollouts = (
            agent(algorithm="A2C", network=(64, 64), n_steps=8, batch_size=None, n_epochs=None, ent_coef=0.01),
            400,
        )

    started, ended = stock(environment, who, 11, rollouts)
    our_start, our_end = ours(environment, who, 11, rollouts)

    assert same(started, our_start)
    assert same(ended, our_end)
    assert not same(started, ended)


def filled(environment, who=None, seed=0):
    """Return a learner whose rollout buffer is full."""
    learner = learner_for(environment, who or agent(engine="torch"), seed)
    env = make_vec_env(environment, learner.agent.n_envs, 5, 0)
    learner.algorithm.model.set_env(env)
    learner.algorithm.model._setup_learn(1, reset_num_timesteps=False)
    collect(learner.algorithm.model, env, learner.algorithm.engine, 0.95)
    env.close()
    return learner


def another_policy(learner, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        other = copy.deepcopy(learner.weights())
        for value in other.values():
            value += 0.3 * torch.randn_like(value)
    learner.trusted = other
    return learner.reference_policy()


def divergence_by_hand(policy, frozen, observations):
    """KL(policy || anchor) of each observation, from the textbook formulas, one action dimension at a time."""
    one, other = (p.get_distribution(observations).distribution for p in (policy, frozen))
    if isinstance(one, torch.distributions.Normal):
        terms = (
            torch.log(other.scale / one.scale)
            + (one.scale**2 + (one.loc - other.loc) ** 2) / (2 * other.scale**2)
            - 0.5
        )
        return terms.sum(dim=1)
    if isinstance(one, torch.distributions.Bernoulli):
        p, q = one.probs, other.probs
        return (p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))).sum(dim=1)
    parts = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
    return sum((p.probs * (torch.log(p.probs) - torch.log(q.probs))).sum(dim=1) for p, q in parts)


@pytest.mark.parametrize("environment", [echo(), BOX, MULTIDISCRETE, MULTIBINARY], ids=str)
def test_the_anchors_gradient_is_that_of_the_formula_summed_over_action_dimensions(environment):
    learner = filled(environment)
    frozen = another_policy(learner, 3)
    batch = next(learner.algorithm.model.rollout_buffer.get(64))
    policy, observations = learner.policy, batch.observations

    raw, reference = (
        p.action_net(p.mlp_extractor.forward_actor(p.extract_features(observations))) for p in (policy, frozen)
    )
    head = torch_head(policy.action_space)
    anchored = head.divergence(head.distribution(raw, policy), head.distribution(reference, frozen)).mean()
    ours = torch.autograd.grad(anchored, list(policy.parameters()), allow_unused=True)
    by_hand = divergence_by_hand(policy, frozen, observations).mean()
    expected = torch.autograd.grad(by_hand, list(policy.parameters()), allow_unused=True)

    assert by_hand.item() > 0.01
    assert anchored.item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in ours)
    for gradient, reference in zip(ours, expected, strict=True):
        if gradient is None or reference is None:
            assert gradient is None and reference is None
        else:
            torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_strong_anchor_holds_the_policy_near_it_and_stays_itself(engine):
    moved = {}
    for weight in (0.0, 50.0):
        learner = filled(BOX, agent(learning_rate=1e-2, n_epochs=10, engine=engine))
        learner.trust()
        frozen = learner.reference_policy()
        before = weights(frozen)
        anchor = ReferenceKL(frozen, weight) if weight else None
        metrics = learner.algorithm.update(learner.algorithm.model.rollout_buffer, learner.agent.settings(), [anchor])
        assert same(before, weights(frozen))
        assert ("anchor_kl" in metrics) == (weight > 0)
        observations = next(learner.algorithm.model.rollout_buffer.get(64)).observations
        moved[weight] = divergence_by_hand(learner.policy, frozen, observations).mean().item()

    assert moved[50.0] < moved[0.0] / 10


def shown_by(environment, learner, episodes=6):
    """Return the transitions of an expert, as cloning and fine-tuning take them."""
    shown = record(environment, Expert("toys:tell", episodes=episodes), tell, 0, 0)
    policy = learner.policy
    return place_demonstrations("shown", shown, policy.observation_space, policy.action_space).transitions()


SEEN = [echo(sees="image"), echo(sees="dict"), echo(sees="discrete")]
POLICIES = {"image": "CnnPolicy", "dict": "MultiInputPolicy"}


@pytest.mark.parametrize("environment", [echo(), BOX, MULTIDISCRETE, MULTIBINARY, *SEEN], ids=str)
def test_the_demonstrations_gradient_is_that_of_their_likelihood_as_the_policy_itself_gives_it(environment):
    sees = environment.kwargs.get("sees", "vector")
    normalize = sees in ("vector", "dict")
    settings = {"policy": POLICIES.get(sees, "MlpPolicy"), "normalize_observations": normalize, "batch_size": 64}
    first = {}
    for weight in (0.0, 0.7):
        learner = filled(environment, agent(engine="torch", n_epochs=1, max_grad_norm=1e9, **settings))
        policy, shown = learner.policy, shown_by(environment, learner)
        if normalize:
            policy.features_extractor.absorb(shown[0])
        expected = -policy.get_distribution(policy.obs_to_tensor(shown[0])[0]).log_prob(
            torch.as_tensor(shown[1]).to(torch.float32 if environment == MULTIBINARY else None)
        )
        by_hand = torch.autograd.grad(expected.mean(), list(policy.parameters()), allow_unused=True)
        np.random.seed(1)
        pull = DemonstrationLoss(*shown, weight) if weight else None
        report = learner.algorithm.update(learner.algorithm.model.rollout_buffer, learner.agent.settings(), [pull])
        # After one step of Adam from nothing.
        first[weight] = [policy.optimizer.state[parameter]["exp_avg"] / 0.1 for parameter in policy.parameters()]

    assert len(shown[1]) == 48
    assert report["demonstration_loss"] == pytest.approx(expected.mean().item(), rel=1e-5)
    for without, with_them, gradient in zip(*first.values(), by_hand, strict=True):
        more = torch.zeros_like(without) if gradient is None else 0.7 * gradient
        torch.testing.assert_close(with_them - without, more, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize("environment", [echo(), BOX, MULTIDISCRETE], ids=str)
def test_demonstrations_become_likelier_than_without_their_term(environment, engine):
    ends = {}
    for weight in (0.0, 1.0):
        learner = filled(environment, agent(engine=engine, n_epochs=10))
        shown = shown_by(environment, learner)
        before = measure(learner.policy, *shown)["loss"]
        pull = DemonstrationLoss(*shown, weight) if weight else None
        report = learner.algorithm.update(learner.algorithm.model.rollout_buffer, learner.agent.settings(), [pull])
        assert ("demonstration_loss" in report) == (weight > 0)
        ends[weight] = measure(learner.policy, *shown)["loss"]

    assert ends[1.0] < min(before, ends[0.0]) - 0.1


@given(st.integers(1, 50), st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_batches_of_demonstrations_hold_none_twice_and_all_of_a_few(count, size, batches, seed):
    shown = DemonstrationLoss(np.zeros((count, 1)), np.arange(count), 1.0)

    rows, again = (shown.draw(np.random.default_rng(seed), batches, size) for _ in range(2))

    assert rows.shape == (batches, min(count, size))
    assert all(len(set(batch)) == len(batch) and set(batch) <= set(range(count)) for batch in rows.tolist())
    np.testing.assert_array_equal(rows, again)


def test_the_anchors_statistics_do_not_move_with_the_policys():
    learner = filled(echo(), agent(normalize_observations=True))
    learner.trust()
    frozen = learner.reference_policy()
    before = weights(frozen)

    learner.policy.features_extractor.absorb(np.full((10, 3), 40.0))

    assert same(before, weights(frozen))
    assert not same(before, weights(learner.policy))


@pytest.mark.parametrize(
    ("environment", "engine"),
    [(echo(), "torch"), (echo(), "numpy"), (BOX, "torch"), (BOX, "numpy"), (echo(sees="image"), "torch")],
    ids=str,
)
def test_fitting_the_critic_changes_the_critics_own_parameters_and_nothing_else(environment, engine):
    policy = "CnnPolicy" if environment.kwargs.get("sees") == "image" else "MlpPolicy"
    learner = filled(environment, agent(policy=policy, normalize_observations=policy == "MlpPolicy", engine=engine))
    own = critic_parameters(learner.policy)
    names = {name for name, parameter in learner.policy.named_parameters() if any(parameter is p for p in own)}
    before = weights(learner.policy)

    learner.algorithm.engine.fit_critic(
        learner.algorithm.model.rollout_buffer, torch.optim.Adam(own, lr=1e-3), epochs=2, batch_size=32
    )

    changed = {name for name, value in weights(learner.policy).items() if not torch.equal(value, before[name])}
    assert changed == names
    assert all(name.startswith(("mlp_extractor.value_net", "value_net")) for name in names)


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_fitting_the_critic_brings_it_nearer_to_the_returns(engine):
    learner = filled(echo(), agent(engine=engine))
    optimizer = torch.optim.Adam(critic_parameters(learner.policy), lr=1e-2)
    fit, buffer = learner.algorithm.engine.fit_critic, learner.algorithm.model.rollout_buffer

    first = fit(buffer, optimizer, epochs=1, batch_size=64)
    fit(buffer, optimizer, epochs=60, batch_size=32)
    last = fit(buffer, optimizer, epochs=1, batch_size=64)

    assert last["value_loss"] < 0.6 * first["value_loss"]


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_a_loss_that_is_not_finite_leaves_the_weights_alone(algorithm, engine):
    only_ppo = {} if algorithm == "PPO" else {"batch_size": None, "n_epochs": None}
    learner = filled(echo(), agent(algorithm=algorithm, engine=engine, **only_ppo))
    before = weights(learner.policy)
    learner.algorithm.model.rollout_buffer.returns[:] = np.inf

    with refused("loss-not-finite", kind=LossNotFinite):
        learner.algorithm.update(learner.algorithm.model.rollout_buffer, learner.agent.settings())

    assert same(before, weights(learner.policy))


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(engine):
    learner = filled(echo(), agent(engine=engine, activation="relu"))
    # The loss of such returns is finite, and so are the gradients; their squares are not.
    learner.algorithm.model.rollout_buffer.returns[:] = 1e18
    learner.algorithm.model.rollout_buffer.observations[:] = 1e2
    before = weights(learner.policy)

    with refused("loss-not-finite", kind=LossNotFinite):
        learner.algorithm.update(learner.algorithm.model.rollout_buffer, learner.agent.settings())

    assert same(before, weights(learner.policy))


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_an_update_reports_what_it_did(engine):
    learner = filled(BOX, agent(learning_rate=1e-3, engine=engine))

    metrics = learner.algorithm.update(learner.algorithm.model.rollout_buffer, learner.agent.settings())

    assert {"policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "std", "explained_variance"} <= set(
        metrics
    )
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["learning_rate"] == 1e-3
    assert learner.policy.optimizer.param_groups[0]["lr"] == 1e-3


def test_the_runner_updates_as_the_functions_do():
    """Four rollouts of a runner with everything switched off are four rollouts of stable-baselines3."""
    who = agent(learning_rate=1e-3, engine="torch")
    stage = tuning(environment=BOX, anchor_kl=0.0, critic_fit_steps=0, evaluation_episodes=0)
    learner = learner_for(BOX, who, 11)
    learner.trust()
    runner = FineTuningRunner(context_for(stage, learner, 5))
    for _ in range(5):
        runner.step()
    runner.close()

    assert runner.stage_steps == 4 * who.rollout_steps
    assert same(weights(learner.policy), stock(BOX, who, 11, rollouts=4)[1])


@settings(max_examples=200)
@given(
    rows=st.integers(1, 300),
    width=st.integers(2, 40),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    seed=st.integers(0, 2**63 - 1),
)
def test_log_probabilities_have_the_same_bits_with_and_without_gradients(rows, width, scale, seed):
    raw = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale
    head = torch_head(spaces.Discrete(width))

    acting, learning = head.distribution(raw, None), head.distribution(raw.clone().requires_grad_(), None)

    assert torch.equal(acting, learning.detach())
