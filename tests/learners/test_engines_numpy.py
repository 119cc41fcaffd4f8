"""The NumPy engine: gradients, updates and draws against torch, on the policy's own memory."""

import copy

import numpy as np
import pytest
import torch
from building import agent, cloning, echo, learner_for
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stepping import context_for

from rlstages.environments.make import make_vec_env
from rlstages.learners.algorithms.base import DemonstrationLoss, ReferenceKL
from rlstages.learners.algorithms.on_policy.numpy.engine import NumpyEngine
from rlstages.learners.algorithms.on_policy.protocol import critic_parameters
from rlstages.learners.algorithms.on_policy.rollout import collect
from rlstages.learners.algorithms.on_policy.torch.engine import TorchEngine
from rlstages.learners.learner import Learner
from rlstages.learners.normalizer import normalizer_of
from rlstages.stages.cloning import CloningRunner
from rlstages.stages.cloning_epochs import measure
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint

ACTIONS = {
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([2, 3, 5]),
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "table": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
}
OBSERVATIONS = {
    "vector": spaces.Box(-1.0, 1.0, (5,), np.float32),
    "table": spaces.Box(-1.0, 1.0, (3, 2), np.float64),
    "number": spaces.Discrete(6),
}


class SamePermutations(NumpyEngine):
    """Takes its minibatches as the torch engine does, so that only arithmetic can differ."""

    def _generator(self):
        return np.random.Generator(np.random.get_bit_generator())

    def _order(self, generator, size):
        return np.random.permutation(size)


def filled(who, sees, acts, seed):
    """Return a learner and a rollout buffer of random observations, and actions that it might have taken."""
    learner = Learner(who, OBSERVATIONS[sees], ACTIONS[acts], seed)
    draw = np.random.default_rng(seed)
    buffer, policy = learner.algorithm.model.rollout_buffer, learner.policy
    if normalizer_of(policy) is not None:
        normalizer_of(policy).absorb(draw.normal(0.3, 0.5, (50, *policy.observation_space.shape)))
    with torch.no_grad():
        # Weights that are not those of the start: large enough for the last layer to say something.
        for parameter in policy.parameters():
            parameter += torch.as_tensor(draw.normal(0, 0.15, parameter.shape), dtype=torch.float32)
        size = buffer.buffer_size * buffer.n_envs
        kept = buffer.observations
        if sees == "number":
            kept[:] = draw.integers(0, 6, kept.shape)
        else:
            kept[:] = draw.normal(0, 1, kept.shape)
        seen = torch.as_tensor(kept.reshape(size, *policy.observation_space.shape))
        actions, values, log_prob = policy(seen)
    shape = buffer.values.shape
    buffer.actions[:] = actions.numpy().reshape(buffer.actions.shape)
    # The policy has moved since the rollout, so that some ratios and values are beyond the clipping.
    buffer.log_probs[:] = (log_prob.numpy() + draw.normal(0, 0.15, size)).reshape(shape)
    buffer.values[:] = values.numpy().reshape(shape) + np.random.default_rng([seed, 1]).normal(0, 0.1, shape)
    buffer.advantages[:] = draw.normal(0, 2, shape)
    buffer.returns[:] = draw.normal(0, 1, shape)
    buffer.pos, buffer.full = buffer.buffer_size, True
    return learner, buffer


def anchored(learner, weight, seed):
    """Return an anchor beside the policy."""
    if not weight:
        return None
    moved = copy.deepcopy(learner.weights())
    draw = torch.Generator().manual_seed(seed)
    for name, value in moved.items():
        if "standardizers" not in name:
            value += 0.1 * torch.randn(value.shape, generator=draw)
    learner.trusted = moved
    return ReferenceKL(learner.reference_policy(), weight)


def demonstrated(learner, weight, seed, count=30):
    """Return demonstrations that nobody has learned from, in the space's own types."""
    if not weight:
        return None
    draw = np.random.default_rng([seed, 2])
    sees, acts = learner.policy.observation_space, learner.policy.action_space
    if isinstance(sees, spaces.Discrete):
        seen = draw.integers(0, sees.n, count)
    else:
        seen = draw.normal(0.2, 1, (count, *sees.shape)).astype(sees.dtype)
    if isinstance(acts, spaces.Box):
        return DemonstrationLoss(
            seen, draw.uniform(acts.low, acts.high, (count, *acts.shape)).astype(acts.dtype), weight
        )
    return DemonstrationLoss(
        seen, draw.integers(0, getattr(acts, "nvec", getattr(acts, "n", 0)), (count, *acts.shape)), weight
    )


def moments(policy):
    state = policy.optimizer.state_dict()["state"]
    return {(index, name): value for index, slots in state.items() for name, value in slots.items()}


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@st.composite
def cases(draw):
    ppo = draw(st.booleans())
    steps, copies = draw(st.integers(4, 24)), draw(st.integers(1, 5))
    normalize = draw(st.booleans())
    given = {
        "algorithm": "PPO" if ppo else "A2C",
        "network": tuple(draw(st.lists(st.integers(1, 40), max_size=3))),
        "activation": draw(st.sampled_from(["tanh", "relu"])),
        "n_envs": copies,
        "n_steps": steps,
        "learning_rate": draw(st.sampled_from([1e-4, 3e-4, 1e-3])),
        "ent_coef": draw(st.sampled_from([0.0, 0.01, 0.1])),
        "vf_coef": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "max_grad_norm": draw(st.sampled_from([0.1, 0.5, 100.0])),
        "log_std_init": draw(st.sampled_from([-1.0, 0.0])),
        "normalize_observations": normalize,
        "batch_size": draw(st.integers(2, 64)) if ppo else None,
        "n_epochs": draw(st.integers(1, 4)) if ppo else None,
    }
    if ppo:
        given["clip_range"] = draw(st.sampled_from([0.1, 0.2]))
        given["clip_range_vf"] = draw(st.sampled_from([None, 0.05, 0.5]))
        given["target_kl"] = draw(st.sampled_from([None, None, 0.02]))
    sees = draw(st.sampled_from(["vector", "table"] if normalize else list(OBSERVATIONS)))
    acts, weight, seed = (
        draw(st.sampled_from(list(ACTIONS))),
        draw(st.sampled_from([0.0, 0.1, 1.0])),
        draw(st.integers(0, 10_000)),
    )
    shown = draw(st.sampled_from([0.0, 0.1, 1.0])), draw(st.integers(1, 100))
    return given, sees, acts, weight, shown, seed


@settings(max_examples=40)
@given(cases())
def test_updates_are_the_torch_engines(case):
    """To 1e-6 in weights after 32 gradient steps on the same buffer, and so is what is reported.

    Twice that where a single weight's gradients are nothing but rounding, which Adam's steps do not tell from others.
    RMSprop's first steps are ten times as long as its learning rate, and rounding grows with them.
    """
    given_settings, sees, acts, weight, shown, seed = case
    ended = []
    for make in (lambda p, a: TorchEngine(p, a), lambda p, a: SamePermutations(p, a, 0)):
        learner, buffer = filled(agent(**given_settings), sees, acts, seed)
        pull = anchored(learner, weight, seed), demonstrated(learner, shown[0], seed, shown[1])
        engine = make(learner.policy, learner.agent.algorithm.name == "PPO")
        np.random.seed(seed)
        reports = []
        while not reports or (
            max(float(slots["step"]) for slots in learner.policy.optimizer.state.values()) < 32 and len(reports) < 32
        ):
            reports.append(engine.update(buffer, learner.agent.settings(), pull))
        ended.append((learner.weights(), moments(learner.policy), reports))
    (weights, state, reports), (our_weights, our_state, our_reports) = ended

    bound = 1e-6 if given_settings["algorithm"] == "PPO" else 1e-5
    apart = sorted((float((value - our_weights[name]).abs().max()) for name, value in weights.items()), reverse=True)
    assert apart[0] < 2 * bound and apart[1] < bound
    assert largest_difference(state, our_state) < 1e-4
    assert [report.keys() for report in reports] == [report.keys() for report in our_reports]
    for report, ours in zip(reports, our_reports, strict=True):
        # The engine measures a continuous policy's spread once an epoch.
        assert ours == pytest.approx(report, rel=0.02, abs=0.02 if given_settings["algorithm"] == "PPO" else 0.04)


@pytest.mark.parametrize("shown", [0.0, 0.7])
@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("acts", list(ACTIONS))
def test_gradients_are_autograds(acts, activation, weight, shown):
    who = agent(
        n_epochs=1, batch_size=64, ent_coef=0.05, vf_coef=0.7, max_grad_norm=1e9, activation=activation, network=(24, 9)
    )
    learner, buffer = filled(who, "vector", acts, 3)
    anchor, demonstrations = anchored(learner, weight, 3), demonstrated(learner, shown, 3)
    policy = learner.policy
    batch = next(copy.deepcopy(buffer).get(None))
    actions = batch.actions.long().flatten() if acts == "discrete" else batch.actions
    values, log_prob, entropy = policy.evaluate_actions(batch.observations, actions)
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    ratio = torch.exp(log_prob - batch.old_log_prob)
    loss = -torch.min(advantages * ratio, advantages * ratio.clamp(0.8, 1.2)).mean()
    loss = loss - 0.05 * entropy.mean() + 0.7 * ((values.flatten() - batch.returns) ** 2).mean()
    if anchor is not None:
        one, other = (p.get_distribution(batch.observations).distribution for p in (policy, anchor.policy))
        pairs = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
        terms = [torch.distributions.kl_divergence(*pair).reshape(len(batch.returns), -1) for pair in pairs]
        loss = loss + weight * torch.cat(terms, dim=1).sum(dim=1).mean()
    if demonstrations is not None:
        # They are fewer than a batch, so that every one counts.
        chosen = torch.as_tensor(demonstrations.actions)
        given = policy.get_distribution(torch.as_tensor(demonstrations.observations))
        loss = loss - shown * given.log_prob(chosen.reshape(chosen.shape if acts == "discrete" else (30, -1))).mean()
    parameters = dict(policy.named_parameters())
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    report = NumpyEngine(policy, True, 0).update(buffer, who.settings(), [anchor, demonstrations])

    assert ("demonstration_loss" in report) == (shown > 0)
    for name, parameter in parameters.items():
        # After one step of Adam from nothing.
        ours = policy.optimizer.state[parameter]["exp_avg"] / 0.1
        torch.testing.assert_close(ours, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_critic_is_fitted_as_torch_does(normalize):
    fitted = []
    for engine in (TorchEngine, SamePermutations):
        learner, buffer = filled(agent(normalize_observations=normalize, n_steps=32), "vector", "box", 5)
        optimizer = torch.optim.Adam(critic_parameters(learner.policy), lr=1e-3, eps=1e-5)
        arguments = (0,) if engine is SamePermutations else ()
        np.random.seed(1)
        report = engine(learner.policy, "PPO", *arguments).fit_critic(buffer, optimizer, epochs=8, batch_size=32)
        fitted.append((learner.weights(), optimizer.state_dict()["state"], report))
    (weights, state, report), (our_weights, our_state, our_report) = fitted

    assert largest_difference(weights, our_weights) < 1e-6
    assert state.keys() == our_state.keys()
    assert all(largest_difference(state[index], our_state[index]) < 1e-6 for index in state)
    assert our_report == pytest.approx(report, abs=1e-4)


@pytest.mark.parametrize("l2_weight", [0.0, 1e-3])
@pytest.mark.parametrize("entropy_weight", [0.0, 1e-3])
@pytest.mark.parametrize("acts", ["discrete", "box", "multidiscrete"])
def test_cloning_is_imitations(tmp_path, acts, entropy_weight, l2_weight):
    """Its loss to 1e-6 after 36 gradient steps on the same batches; the weights drift a little further apart.

    imitation's Adam divides by moments that may be as small as 1e-8.
    """
    cloned = []
    for engine in ("torch", "numpy"):
        environment = echo(acts=acts)
        who = agent(engine=engine, network=(24, 24), normalize_observations=True)
        learner = learner_for(environment, who, 3)
        stage = cloning(
            environment=environment,
            episodes=24,
            batch_size=32,
            max_epochs=9,
            learning_rate=1e-3,
            entropy_weight=entropy_weight,
            l2_weight=l2_weight,
            held_out=0.0,
            evaluation_episodes=0,
        )
        runner = CloningRunner(context_for(stage, learner, run=tmp_path / engine))
        while runner._epochs is None or runner._epochs.number * 6 < 32:
            runner.step()
        means = {i: slots["exp_avg"] for i, slots in runner._epochs._bc.optimizer.state_dict()["state"].items()}
        cloned.append((learner.weights(), means, measure(learner.policy, *runner._epochs.data.learned)["loss"]))
        started = learner_for(environment, who, 3).weights()
        runner.close()
    (weights, state, loss), (our_weights, our_state, our_loss) = cloned

    assert our_loss == pytest.approx(loss, abs=1e-6)
    assert largest_difference(weights, our_weights) < 5e-6
    assert largest_difference(state, {index: our_state[index] for index in state}) < 1e-6
    assert float((weights["action_net.weight"] - started["action_net.weight"]).abs().max()) > 1e-3


@pytest.mark.parametrize("acts", ["discrete", "box"])
def test_the_gradient_of_a_batch_larger_than_is_measured_at_once_is_autograds(acts):
    learner, _ = filled(agent(), "vector", acts, 3)
    policy, shown = learner.policy, demonstrated(learner, 1.0, 3, count=4_300)
    given = policy.get_distribution(torch.as_tensor(shown.observations))
    loss = -given.log_prob(torch.as_tensor(shown.actions)).mean()
    parameters = list(policy.parameters())
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    optimizer = torch.optim.Adam(parameters, lr=1e-2)

    learner.algorithm.engine.clone(shown.observations, shown.actions, [np.arange(4_300)], optimizer, 0.0, 0.0)

    for parameter, gradient in zip(parameters, expected, strict=True):
        # After one step of Adam from nothing.
        ours = optimizer.state[parameter]["exp_avg"] / 0.1
        torch.testing.assert_close(ours, torch.zeros_like(ours) if gradient is None else gradient, rtol=1e-4, atol=1e-6)


def rollout(environment, engine="numpy", seed=0, **settings_):
    """Return a learner that has played one rollout of an environment."""
    learner = learner_for(environment, agent(engine=engine, **settings_), seed)
    env = make_vec_env(environment, learner.agent.n_envs, 5, 0)
    learner.algorithm.model.set_env(env)
    learner.algorithm.model._setup_learn(1, reset_num_timesteps=False)
    collect(learner.algorithm.model, env, learner.algorithm.engine, 0.95)
    env.close()
    return learner


@pytest.mark.parametrize("acts", ["discrete", "box", "multidiscrete"])
@pytest.mark.parametrize("sees", ["vector", "discrete"])
def test_a_rollouts_values_log_probabilities_and_advantages_are_stable_baselines3s(acts, sees):
    environment = echo(acts=acts, sees=sees if acts == "discrete" else "vector", steps=5)
    learner = rollout(environment, n_steps=33, network=(24, 24))
    buffer, policy = learner.algorithm.model.rollout_buffer, learner.policy
    seen = torch.as_tensor(buffer.observations.reshape(-1, *policy.observation_space.shape))
    actions = torch.as_tensor(buffer.actions.reshape(len(seen), -1))
    with torch.no_grad():
        values, log_prob, _ = policy.evaluate_actions(seen, actions.flatten() if acts == "discrete" else actions)
    expected = copy.deepcopy(buffer)
    expected.gae_lambda = 0.95
    last = policy.predict_values(torch.as_tensor(learner.algorithm.model._last_obs)).detach()
    expected.compute_returns_and_advantage(last, learner.algorithm.model._last_episode_starts)

    np.testing.assert_allclose(buffer.values.reshape(-1), values.numpy().reshape(-1), atol=1e-6)
    np.testing.assert_allclose(buffer.log_probs.reshape(-1), log_prob.numpy(), atol=1e-5)
    np.testing.assert_allclose(buffer.advantages, expected.advantages, atol=1e-5)
    np.testing.assert_allclose(buffer.returns, expected.returns, atol=1e-5)
    # Every fifth step ends an episode by its limit of time, and is worth more than its reward of 0 or 1.
    cut = np.zeros_like(buffer.rewards)
    cut[4::5] = 1
    whole = np.isin(buffer.rewards, [0.0, 1.0])
    assert whole[cut == 0].all() and not whole[cut == 1].any()


@pytest.mark.parametrize("acts", ["discrete", "multidiscrete", "box"])
def test_actions_are_drawn_from_the_policys_distribution(acts):
    who = agent(engine="numpy", n_envs=100, n_steps=80, network=(16,), log_std_init=-0.5)
    learner, buffer = filled(who, "vector", acts, 2)
    engine, policy = learner.algorithm.engine, learner.policy
    seen = np.tile(np.array([0.5, -1.0, 0.2, 0.9, -0.3], np.float32), (100, 1))
    engine.begin_rollout(buffer)
    drawn = np.concatenate([engine.act(step, seen) for step in range(80)])

    distribution = policy.get_distribution(torch.as_tensor(seen[:1])).distribution
    if acts == "box":
        mean, spread = distribution.mean[0].detach().numpy(), distribution.stddev[0].detach().numpy()
        assert np.abs(drawn.mean(axis=0) - mean).max() < 4 * spread.max() / len(drawn) ** 0.5
        assert drawn.std(axis=0) == pytest.approx(spread, rel=0.04)
        assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.05
        return
    parts = distribution if acts == "multidiscrete" else [distribution]
    for column, part in zip(drawn.reshape(len(drawn), -1).T, parts, strict=True):
        share = part.probs[0].detach().numpy()
        counted = np.bincount(column, minlength=len(share)) / len(column)
        assert np.abs(counted - share).max() < 4 * (0.25 / len(column)) ** 0.5
        # The test would see uniform draws.
        assert np.abs(share - 1 / len(share)).max() > 0.03


def test_copies_and_steps_have_draws_of_their_own():
    learner, buffer = filled(agent(engine="numpy", n_envs=4), "vector", "box", 2)
    seen = np.zeros((4, 5), np.float32)
    drawn = []
    for _ in range(2):
        learner.algorithm.engine.begin_rollout(buffer)
        drawn += [learner.algorithm.engine.act(step, seen) for step in range(3)]

    assert len(np.unique(np.concatenate(drawn))) == 2 * 3 * 4 * 3


def test_draws_depend_on_the_seed_and_on_nothing_global():
    played = []
    for seed, elsewhere in ((0, 1), (0, 2), (1, 1)):
        learner = learner_for(echo(acts="box"), agent(engine="numpy"), 0)
        learner.algorithm._seed = seed
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)
        learner.algorithm.engine.begin_rollout(learner.algorithm.model.rollout_buffer)
        played.append(learner.algorithm.engine.act(0, np.zeros((4, 2), np.float32)))

    assert np.array_equal(played[0], played[1])
    assert not np.array_equal(played[0], played[2])


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_a_restored_learner_goes_on_to_the_same_bits(tmp_path, algorithm):
    more = {} if algorithm == "PPO" else {"batch_size": None, "n_epochs": None}
    who = agent(algorithm=algorithm, engine="numpy", ent_coef=0.01, **more)
    learner, buffer = filled(who, "vector", "box", 4)
    for _ in range(3):
        learner.algorithm.update(buffer, who.settings())
    state = read_checkpoint(write_checkpoint(tmp_path, "one", learner.state_dict()))
    other, same_buffer = filled(who, "vector", "box", 4)
    other.algorithm.engine._seed = 99
    # It has lived, and forgets that.
    other.algorithm.update(same_buffer, who.settings())
    other.load_state_dict(state)

    for one, kept in ((learner, buffer), (other, same_buffer)):
        for _ in range(3):
            one.algorithm.update(kept, who.settings())
        one.algorithm.engine.begin_rollout(kept)
    seen = np.ones((4, 5), np.float32)

    assert all(torch.equal(value, other.weights()[name]) for name, value in learner.weights().items())
    assert all(torch.equal(value, moments(other.policy)[name]) for name, value in moments(learner.policy).items())
    assert np.array_equal(learner.algorithm.engine.act(0, seen), other.algorithm.engine.act(0, seen))


def test_the_model_of_stable_baselines3_has_the_same_weights_and_moments(tmp_path):
    who = agent(engine="numpy", n_epochs=2)
    learner, buffer = filled(who, "vector", "discrete", 4)
    before = learner.weights()
    learner.algorithm.update(buffer, who.settings())
    seen = np.ones((7, 5), np.float32)
    learner.algorithm.engine.begin_rollout(buffer)

    learner.algorithm.model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")

    assert (tmp_path / "model.zip").stat().st_size < 200_000
    for name, value in loaded.policy.state_dict().items():
        assert torch.equal(value, learner.weights()[name])
        assert not torch.equal(value, before[name])
    state, our_state = moments(loaded.policy), moments(learner.policy)
    assert all(torch.equal(state[name], value) for name, value in our_state.items())
    assert {float(value) for (_, name), value in our_state.items() if name == "step"} == {4.0}
    expected = learner.policy.predict_values(torch.as_tensor(seen)).detach().numpy().reshape(-1)
    np.testing.assert_allclose(learner.algorithm.engine.end_rollout([], seen), expected, atol=1e-6)


def test_moments_that_fade_away_end_at_zero_and_nothing_else_is_changed():
    """Numbers below 1e-38 would be kept, and slow down every later step; outside the engine they are what they were."""
    who = agent(engine="numpy", network=(16,), n_epochs=20)
    learner, buffer = filled(who, "number", "discrete", 4)
    buffer.observations[:] = 1
    learner.algorithm.update(buffer, who.settings())
    first = learner.policy.mlp_extractor.policy_net[0].weight
    mean = learner.policy.optimizer.state[first]["exp_avg"]
    # The first input was on once, long ago.
    mean[:, 0] = 1e-37
    learner.algorithm.update(buffer, who.settings())

    assert not mean[:, 0].any()
    assert mean[:, 1].any()
    assert np.float32(1e-38) * np.float32(0.01) != 0


def test_torchs_optimiser_may_step_in_between():
    """As behaviour cloning does, or a user: the moments are the same memory, and gradients may be replaced."""
    ended = []
    for engine in ("torch", "numpy"):
        learner, buffer = filled(agent(n_epochs=1, batch_size=64, engine=engine), "vector", "box", 4)
        policy = learner.policy
        learner.algorithm.update(buffer, learner.agent.settings())
        policy.optimizer.zero_grad()
        sum(part.sum() for part in policy.evaluate_actions(torch.ones(3, 5), torch.ones(3, 3))).backward()
        policy.optimizer.step()
        learner.algorithm.update(buffer, learner.agent.settings())
        ended.append((learner.weights(), moments(policy)))

    assert largest_difference(ended[0][0], ended[1][0]) < 1e-6
    assert {float(value) for (_, name), value in ended[1][1].items() if name == "step"} == {3.0}
