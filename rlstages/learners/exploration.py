"""Exploration that a certain policy lacks: measured in each state, and given back.

A clone of a consistent expert takes one action in most states with a probability near 1, and policy gradients of what
is never tried are 0. A bonus for entropy hardly helps, because its gradient vanishes there too, and a temperature for
all states leaves those certain that matter. So each state's distribution is mixed with the uniform one, by a few passes
of the actor over the states of a rollout (docs/exploration.md says what else was tried).
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
"""Certainty sits in few states, so the mean says little."""
CERTAIN = 0.2
"""Of the largest entropy: a policy with less in a tenth of its states is certain there."""
CERTAIN_LOG_STD = -1.5
"""In [-1, 1], which actions have: a continuous policy with less noise is certain."""
_NEAR, _MOST_STEPS, _BATCH, _RATE = 0.01, 2_000, 256, 3e-3
_AT_ONCE = 4096


def entropies(policy: ActorCriticPolicy, observations: Observations) -> np.ndarray | None:
    """Return the entropy of a policy in each state, as a share of the largest one; `None` for continuous actions.

    Of several choices it is the mean of their shares.

    Args:
        policy: Measured, not changed.
        observations: First axis the states, `n` of them.

    Returns:
        Shape `(n,)`.
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
        `entropy` and `entropy_low`, mean and low quantile over the states, as shares of the largest entropy; of a
        continuous policy `std`, the mean of its standard deviations, as a share of half an action's range.
    """
    found = entropies(policy, observations)
    if found is None:
        return {"std": float(torch.exp(policy.log_std.detach()).mean())}
    return {"entropy": float(found.mean()), "entropy_low": float(np.quantile(found, LOW_QUANTILE))}


def exploration_event(measured: dict[str, float], stage_steps: int, reason: str = "") -> ExplorationMeasured:
    """Return what `measure_exploration` found as an event.

    Args:
        measured: It.
        stage_steps: Environment steps of the stage so far.
        reason: Why the policy is made to try more; empty if it is not.
    """
    entropy, low, std = (measured.get(name) for name in ("entropy", "entropy_low", "std"))
    return ExplorationMeasured(stage_steps, entropy, low, std, reason)


def is_certain(measured: dict[str, float]) -> bool:
    """Say whether a policy, as `measure_exploration` found it, hardly tries anything."""
    if "std" in measured:
        return measured["std"] < math.exp(CERTAIN_LOG_STD)
    return measured["entropy_low"] < CERTAIN


def explore_more(policy: ActorCriticPolicy, observations: Observations, share: float, seed: int) -> None:
    """Have a policy act at random in a share of the cases, in each of some states.

    The actor learns the mixture of its own distribution and the uniform one by cross-entropy; the critic and shared
    features stay as they are. A continuous policy gets at least `share` as its standard deviation.

    Args:
        policy: Changed in place.
        observations: First axis the states.
        share: In [0, 1].
        seed: Of the order of the states.
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
    # An engine may have its own memory for gradients.
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
    """Return what the actor's layers take, shape `(n, features)`; no parameter that is learned here goes into it."""
    parts = np.array_split(np.arange(_rows(observations)), -(-_rows(observations) // _AT_ONCE))
    seen = (policy.obs_to_tensor(take(observations, rows))[0] for rows in parts)
    return torch.cat([cast(torch.Tensor, policy.extract_features(one)) for one in seen])


def _log_probabilities(policy: ActorCriticPolicy, features: torch.Tensor) -> list[torch.Tensor]:
    """Return the log probabilities of each choice, shapes `(n, options)`."""
    raw = policy.action_net(policy.mlp_extractor.forward_actor(features))
    space = policy.action_space
    if isinstance(space, spaces.MultiBinary):
        on = raw.unsqueeze(-1)
        both = torch.cat([functional.logsigmoid(-on), functional.logsigmoid(on)], dim=-1)
        return list(both.unbind(1))
    sizes = [int(n) for n in space.nvec] if isinstance(space, spaces.MultiDiscrete) else [raw.shape[-1]]
    return [functional.log_softmax(part, dim=-1) for part in torch.split(raw, sizes, dim=-1)]
