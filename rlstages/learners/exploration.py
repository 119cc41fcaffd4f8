"""Measure how much a policy explores in each state, and restore exploration.

In most states, the clone of a consistent expert takes one action with a probability near 1, and the policy gradient of
actions that are never tried is 0. An entropy bonus hardly helps, because its gradient vanishes there too. A temperature
for all states leaves the important states certain. So the distribution in each state is mixed with the uniform one, by
a few passes of the actor over the states of a rollout (docs/exploration.md lists what else was tried).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional

from rlstages.demonstrations.episodes import Observations, take
from rlstages.events import ExplorationMeasured

LOW_QUANTILE = 0.1
"""Quantile of the entropy over states. The mean says little, because few states are certain."""
CERTAIN = 0.2
"""Share of the largest entropy. A policy is certain if a tenth of its states have less."""
CERTAIN_LOG_STD = -1.5
"""Log standard deviation, for actions in [-1, 1]. A continuous policy with less noise is certain."""
_NEAR, _MOST_STEPS, _BATCH, _RATE = 0.01, 2_000, 256, 3e-3
_AT_ONCE = 4096


def entropies(policy: ActorCriticPolicy, observations: Observations) -> np.ndarray | None:
    """Return the entropy of a policy in each state, as a share of the largest one; `None` for continuous actions.

    For several discrete actions, it is the mean of their shares.

    Args:
        policy: Policy, which is not changed.
        observations: Observations of `n` states.

    Returns:
        Entropies, shape `(n,)`.
    """
    if isinstance(policy.action_space, spaces.Box):
        return None
    policy.set_training_mode(False)
    with torch.no_grad():
        logs = _log_probabilities(policy, _features(policy, observations))
        each = [-(log.exp() * log).sum(-1) / np.log(log.shape[-1]) for log in logs if log.shape[-1] > 1]
    found: np.ndarray = torch.stack(each).mean(0).cpu().numpy() if each else np.ones(_rows(observations))
    return found


def measure_exploration(policy: ActorCriticPolicy, observations: Observations) -> dict[str, float]:
    """Return how much a policy explores.

    Returns:
        For discrete actions `entropy` and `entropy_low`: mean and low quantile over the states, as shares of the
        largest entropy. For continuous actions `std`: the mean standard deviation, as a share of half an action's
        range.
    """
    found = entropies(policy, observations)
    if found is None:
        return {"std": float(torch.exp(policy.log_std.detach()).mean())}
    return {"entropy": float(found.mean()), "entropy_low": float(np.quantile(found, LOW_QUANTILE))}


def exploration_event(measured: dict[str, float], stage_steps: int, reason: str = "") -> ExplorationMeasured:
    """Return an event for a result of `measure_exploration`.

    Args:
        measured: Result of `measure_exploration`.
        stage_steps: Environment steps of the stage so far.
        reason: Reason for which exploration is restored; empty if it is not.
    """
    entropy, low, std = (measured.get(name) for name in ("entropy", "entropy_low", "std"))
    return ExplorationMeasured(stage_steps, entropy, low, std, reason)


def is_certain(measured: dict[str, float]) -> bool:
    """Return whether a policy with this result of `measure_exploration` hardly explores."""
    if "std" in measured:
        return measured["std"] < math.exp(CERTAIN_LOG_STD)
    return measured["entropy_low"] < CERTAIN


def explore_more(policy: ActorCriticPolicy, observations: Observations, share: float, seed: int) -> None:
    """Mix the policy's distribution with the uniform one, in each of the given states.

    The actor learns the mixture by cross-entropy. The critic and the shared features do not change. A continuous policy
    gets a standard deviation of at least `share` instead.

    Args:
        policy: Policy, which is changed in place.
        observations: Observations; the first axis is the states.
        share: Share of the uniform distribution, in [0, 1].
        seed: Seed of the order of the states.
    """
    if isinstance(policy.action_space, spaces.Box):
        with torch.no_grad():
            policy.log_std.clamp_(min=float(np.log(max(share, 1e-6))))
        return
    rng, count = np.random.default_rng(seed), _rows(observations)
    with torch.no_grad():
        features = _features(policy, observations)
        own = _log_probabilities(policy, features)
        targets = [(1 - share) * log.exp() + share / log.shape[-1] for log in own]
    parameters = [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]
    # Set gradients to zero in place, because an engine may have its own memory for them.
    gradients = [parameter.grad for parameter in parameters]
    optimizer = torch.optim.Adam(parameters, lr=_RATE)
    steps, off = 0, math.inf
    while off > _NEAR and steps < _MOST_STEPS:
        found = []
        for rows in np.array_split(rng.permutation(count), -(-count // _BATCH)):
            logs = _log_probabilities(policy, features[rows])
            terms = [
                (target[rows] * (target[rows].clamp(min=1e-12).log() - log)).sum(-1).mean()
                for target, log in zip(targets, logs, strict=True)
            ]
            loss = torch.stack(terms).mean()
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            optimizer.step()
            found.append(loss.item())
        steps, off = steps + len(found), float(np.mean(found))
    for parameter, before in zip(parameters, gradients, strict=True):
        parameter.grad = before


def _rows(observations: Observations) -> int:
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)


def _features(policy: ActorCriticPolicy, observations: Observations) -> torch.Tensor:
    """Return the inputs of the actor's layers, shape `(n, features)`, which do not depend on trained parameters."""
    parts = np.array_split(np.arange(_rows(observations)), -(-_rows(observations) // _AT_ONCE))
    seen = (policy.obs_to_tensor(take(observations, rows))[0] for rows in parts)
    return torch.cat([cast(torch.Tensor, policy.extract_features(one)) for one in seen])


def _log_probabilities(policy: ActorCriticPolicy, features: torch.Tensor) -> list[torch.Tensor]:
    """Return the log probabilities of each discrete action, as arrays of shape `(n, options)`."""
    raw = policy.action_net(policy.mlp_extractor.forward_actor(features))
    space = policy.action_space
    if isinstance(space, spaces.MultiBinary):
        on = raw.unsqueeze(-1)
        both = torch.cat([functional.logsigmoid(-on), functional.logsigmoid(on)], dim=-1)
        return list(both.unbind(1))
    sizes = [int(n) for n in space.nvec] if isinstance(space, spaces.MultiDiscrete) else [raw.shape[-1]]
    return [functional.log_softmax(part, dim=-1) for part in torch.split(raw, sizes, dim=-1)]
