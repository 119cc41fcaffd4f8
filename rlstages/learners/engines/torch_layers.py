"""What a policy computes, in torch, without the bookkeeping of modules where they are simple: to the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch.nn import functional

from rlstages.learners.normalizer import NormalizedExtractor


def layers_of(modules: Iterable[nn.Module]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what a row of layers computes."""
    steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
    for module in modules:
        if type(module) is nn.Linear:
            steps.append(partial(_linear, weight=module.weight, bias=module.bias))
        else:
            steps.append({nn.Tanh: torch.tanh, nn.ReLU: torch.relu}.get(type(module), module))

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        for step in steps:
            inputs = step(inputs)
        return inputs

    return compute


def features_of(policy: ActorCriticPolicy) -> Callable[[Any], Any]:
    """Return what a policy's extractor computes from observations."""
    if sees_vectors(policy) and not isinstance(policy.features_extractor, NormalizedExtractor):
        return lambda observations: observations.float().flatten(1)
    return policy.extract_features


def sees_vectors(policy: ActorCriticPolicy) -> bool:
    """Say whether the features are vectors that no parameter goes into, so that those of a rollout can be kept."""
    extractor: Any = policy.features_extractor
    if isinstance(extractor, NormalizedExtractor):
        extractor = extractor.inner
    space = policy.observation_space
    vectors = isinstance(space, spaces.Box) and not is_image_space(space)
    return vectors and isinstance(extractor, FlattenExtractor)


def _linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.linear(inputs, weight, bias)
