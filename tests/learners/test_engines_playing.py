"""The engines play a frozen policy's episodes as stable-baselines3's `predict` would."""

import numpy as np
import pytest
import torch
from building import agent, echo, learner_for

SPACES = [
    *[("numpy", "vector", acts) for acts in ("discrete", "multidiscrete", "box")],
    ("numpy", "discrete", "discrete"),
    *[("torch", "vector", acts) for acts in ("discrete", "multidiscrete", "multibinary", "box")],
    *[("torch", sees, "discrete") for sees in ("discrete", "image", "dict")],
]
POLICIES = {"image": "CnnPolicy", "dict": "MultiInputPolicy"}


def learner(engine, sees, acts, sure, **settings):
    """Return a learner with larger outputs than a new one has."""
    who = agent(engine=engine, policy=POLICIES.get(sees, "MlpPolicy"), log_std_init=-0.5, **settings)
    made = learner_for(echo(sees=sees, acts=acts), who, 3)
    with torch.no_grad():
        made.policy.action_net.weight.mul_(sure)
    return made


def observations(made, count):
    space = made.policy.observation_space
    space.seed(7)
    drawn = [space.sample() for _ in range(count)]
    if isinstance(drawn[0], dict):
        return {key: np.stack([one[key] for one in drawn]) for key in space}
    return np.stack(drawn)


def repeated(seen, times):
    if isinstance(seen, dict):
        return {key: value.repeat(times, axis=0) for key, value in seen.items()}
    return seen.repeat(times, axis=0)


@pytest.mark.parametrize(
    ("engine", "sees", "acts", "normalize"),
    [(*case, False) for case in SPACES] + [(*case, True) for case in SPACES if case[1] == "vector"],
)
def test_the_likeliest_actions_are_those_of_predict(engine, sees, acts, normalize):
    made = learner(engine, sees, acts, 1000, normalize_observations=normalize)
    seen = observations(made, 200)
    if normalize:
        made.policy.features_extractor.absorb(3 * seen + 1)
    expected, _ = made.policy.predict(seen, deterministic=True)

    actions = made.algorithm.player(0, deterministic=True)(seen)

    assert actions.shape == expected.shape
    assert made.policy.action_space.contains(actions[0].astype(made.policy.action_space.dtype))
    if engine == "numpy" and acts == "box":
        np.testing.assert_allclose(actions, expected, atol=1e-5)
        assert (np.abs(actions) == 1).any() and (np.abs(actions) < 1).any()
    else:
        assert np.array_equal(actions, expected)
    assert len(np.unique(actions, axis=0)) > 1


@pytest.mark.parametrize(("engine", "sees", "acts"), SPACES)
def test_sampled_actions_are_distributed_as_those_of_predict(engine, sees, acts):
    """Each of 3 observations 4,000 times: means, and how often each action comes, within 5 standard errors of both."""
    made = learner(engine, sees, acts, 100)
    seen = repeated(observations(made, 3), 100)
    play = made.algorithm.player(5, deterministic=False)
    ours = np.stack([play(seen) for _ in range(40)]).reshape(40, 3, 100, -1).swapaxes(1, 2).reshape(4000, 3, -1)
    torch.manual_seed(0)
    theirs = np.stack([made.policy.predict(seen)[0] for _ in range(40)])
    theirs = theirs.reshape(40, 3, 100, -1).swapaxes(1, 2).reshape(4000, 3, -1)

    for value in [None] if acts == "box" else np.unique(theirs):
        one, other = (drawn if value is None else drawn == value for drawn in (ours, theirs))
        error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / 4000)
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) <= 5 * error).all()
    assert ours.std(axis=0) == pytest.approx(theirs.std(axis=0), abs=0.05)
    assert ours.std(axis=0).max() > 0.2
    assert len(np.unique(ours.reshape(40, 100, 3, -1)[:2].reshape(200, 3, -1), axis=0)) > 1


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_players_of_one_seed_draw_alike_and_others_do_not(engine):
    made = learner(engine, "vector", "box", 1)
    seen = observations(made, 4)
    played = []
    for seed in (1, 1, 2):
        play = made.algorithm.player(seed, deterministic=False)
        played.append(np.stack([play(seen) for _ in range(3)]))

    assert np.array_equal(played[0], played[1])
    assert not np.array_equal(played[0], played[2])
    assert not np.array_equal(played[0][0], played[0][1])
