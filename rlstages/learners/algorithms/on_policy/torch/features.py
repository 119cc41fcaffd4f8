"""Features of observations in torch: the inputs of a policy's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor

from rlstages.learners.normalizer import NormalizedExtractor


def tensor_features(policy: ActorCriticPolicy) -> Callable[[Any], Any]:
    """Return the function that computes a policy's features from observations."""
    if sees_vectors(policy) and not isinstance(policy.features_extractor, NormalizedExtractor):
        return lambda observations: observations.float().flatten(1)
    return policy.extract_features


def sees_vectors(policy: ActorCriticPolicy) -> bool:
    """Return whether the features are vectors that are computed without parameters."""
    extractor: Any = policy.features_extractor
    if isinstance(extractor, NormalizedExtractor):
        extractor = extractor.inner
    space = policy.observation_space
    vectors = isinstance(space, spaces.Box) and not is_image_space(space)
    return vectors and isinstance(extractor, FlattenExtractor)
