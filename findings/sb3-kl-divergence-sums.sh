#!/bin/sh
# stable-baselines3 2.9.2: kl_divergence sums over the dimensions of an action for one kind of action space only.
#
# Expected: common.distributions.kl_divergence(p, q) returns KL(p || q) of whole actions, one number for each state, as
#   Distribution.entropy() and log_prob() do.
# Happens: it does for Discrete and MultiDiscrete. For Box and MultiBinary it returns one number for each state and
#   dimension, shape (n, d).
# Matters: .mean() over the result is the mean divergence of an action in the one case, and a d-th of it in the other. A
#   penalty or a trust region that is tuned on MultiDiscrete actions is d times as loose on continuous ones, and the
#   limit of an update (target_kl) means another distance in each. Nothing fails. Sum over all axes but the first.
#
# Output seen (three dimensions, each with the same divergence):
#   entropy: Box (4,), MultiDiscrete (4,), MultiBinary (4,)
#   kl_divergence: Box (4, 3), MultiDiscrete (4,), MultiBinary (4, 3)
#   mean of kl_divergence / sum of the dimensions' own: Box 0.333, MultiDiscrete 1.000, MultiBinary 0.333
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from stable_baselines3.common import distributions as kinds

STATES, DIMENSIONS = 4, 3


def gaussian(number):
    return kinds.DiagGaussianDistribution(DIMENSIONS).proba_distribution(
        torch.full((STATES, DIMENSIONS), number), torch.zeros(DIMENSIONS)
    )


def categorical(number):
    logits = torch.tensor([[0.0, number] * DIMENSIONS] * STATES)
    return kinds.MultiCategoricalDistribution([2] * DIMENSIONS).proba_distribution(logits)


def bernoulli(number):
    return kinds.BernoulliDistribution(DIMENSIONS).proba_distribution(torch.full((STATES, DIMENSIONS), number))


def one(kind):
    """Return the divergence of one dimension."""
    if kind is gaussian:
        pair = [torch.distributions.Normal(number, 1.0) for number in (0.0, 1.0)]
    else:
        pair = [torch.distributions.Bernoulli(logits=torch.tensor(number)) for number in (0.0, 1.0)]
    return torch.distributions.kl_divergence(*pair).item()


named = {"Box": gaussian, "MultiDiscrete": categorical, "MultiBinary": bernoulli}
entropies = {name: tuple(make(0.0).entropy().shape) for name, make in named.items()}
found = {name: kinds.kl_divergence(make(0.0), make(1.0)) for name, make in named.items()}
shares = {name: found[name].mean().item() / (DIMENSIONS * one(make)) for name, make in named.items()}
print("entropy:", ", ".join(f"{name} {shape}" for name, shape in entropies.items()))
print("kl_divergence:", ", ".join(f"{name} {tuple(value.shape)}" for name, value in found.items()))
print(
    "mean of kl_divergence / sum of the dimensions' own:",
    ", ".join(f"{name} {share:.3f}" for name, share in shares.items()),
)
assert set(entropies.values()) == {(STATES,)}, entropies
assert [tuple(value.shape) for value in found.values()] == [(4, 3), (4,), (4, 3)]
assert [round(share, 3) for share in shares.values()] == [0.333, 1.0, 0.333], shares
PYTHON
