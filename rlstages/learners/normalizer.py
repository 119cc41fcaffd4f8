"""Observation statistics that live inside the policy.

The policy standardises its observations with buffers of its own. So the statistics are copied, saved, cloned and
exported with the policy, and a frozen copy keeps its own. stable-baselines3's `VecNormalize` keeps them in the
environment, where they are lost at the end of a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

CLIP = 10.0
EPSILON = 1e-8
MOST_COUNT = 1e7
_NAMED = 8
"""Maximum number of inputs that a warning names."""


class Standardizer(torch.nn.Module):
    """Running mean and variance of one observation array.

    An element that has never varied counts as 0, whatever its value is, and its statistics begin when it first varies.
    If it were divided by the square root of a variance near 0, it would be clipped wherever it varies later, also in
    reference policies that were made before.

    Args:
        shape: Shape of one observation.
    """

    mean: torch.Tensor
    var: torch.Tensor
    count: torch.Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Standardise and clip to [-10, 10]; the shape does not change."""
        return ((observations - self.mean) / self.spread()).clamp(-CLIP, CLIP)

    def spread(self) -> torch.Tensor:
        """Return the standard deviation, in the shape of one observation; infinite where nothing has varied."""
        return torch.where(_varies(self.mean, self.var), torch.sqrt(self.var + EPSILON), torch.inf)

    def absorb(self, observations: np.ndarray) -> None:
        """Merge the moments of a batch, shape `(n, *shape)` (Chan, Golub and LeVeque 1983)."""
        batch = observations.astype(np.float64)
        n, mean, var = float(len(batch)), batch.mean(axis=0), batch.var(axis=0)
        count = float(self.count)
        old_mean, old_var = (t.cpu().numpy().astype(np.float64) for t in (self.mean, self.var))
        begins = _varies(mean, var) & ~_varies(old_mean, old_var) | (count == 0.0)
        old_mean, old_var = np.where(begins, mean, old_mean), np.where(begins, var, old_var)
        delta, total = mean - old_mean, count + n
        merged = (old_var * count + var * n + delta**2 * count * n / total) / total
        self.mean.copy_(torch.as_tensor(old_mean + delta * n / total))
        self.var.copy_(torch.as_tensor(merged))
        self.count.fill_(min(total, MOST_COUNT))

    def constant(self) -> np.ndarray:
        """Return the indices of elements that have never varied, shape `(k, len(shape))`."""
        return np.argwhere(~_varies(self.mean, self.var).cpu().numpy())


def _varies(mean: Any, var: Any) -> Any:
    """Return, elementwise, whether a variance is more than rounding error."""
    return var > 1e-16 + 1e-14 * mean**2


class NormalizedExtractor(BaseFeaturesExtractor):
    """Standardises the vectors of an observation for another features extractor; images are passed on unchanged.

    Args:
        observation_space: Box space, or Dict space whose float vectors are standardised.
        inner: Features extractor that gets the result.
    """

    def __init__(self, observation_space: gym.Space[Any], inner: type[BaseFeaturesExtractor]) -> None:
        extractor = inner(observation_space)
        super().__init__(observation_space, extractor.features_dim)
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
        vectors = {key: part for key, part in parts.items() if is_vector(part)}
        self.standardizers = torch.nn.ModuleDict(
            {f"obs_{key}": Standardizer(s.shape or ()) for key, s in vectors.items()}
        )
        self.inner = extractor

    def forward(self, observations: Any) -> torch.Tensor:
        """Return the features, shape `(n, features_dim)`."""
        if isinstance(observations, dict):
            observations = {key: self._standardize(key, value) for key, value in observations.items()}
        else:
            observations = self._standardize("", observations)
        return self.inner(observations)  # type: ignore[no-any-return]

    def absorb(self, observations: np.ndarray | Mapping[str, np.ndarray]) -> None:
        """Merge the moments of a batch of observations from the environment."""
        parts = observations if isinstance(observations, Mapping) else {"": observations}
        for key, standardizer in self._parts().items():
            standardizer.absorb(parts[key])

    @property
    def is_empty(self) -> bool:
        """Whether no batch has been absorbed yet."""
        return not any(float(part.count) for part in self._parts().values())

    def constants(self) -> str | None:
        """Return a sentence that names the inputs that have never varied, or `None` if there are none."""
        names = [
            f"{key}{index.tolist() if key else index[0] if len(index) == 1 else index.tolist()}"
            for key, part in self._parts().items()
            for index in part.constant()
        ]
        if not names:
            return None
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        which = f"input {names[0]} has" if len(names) == 1 else f"inputs {', '.join(names[:_NAMED])}{more} have"
        return f"Of the observations, {which} not varied so far; normalize_observations takes them for 0 until they do."

    def _parts(self) -> dict[str, Standardizer]:
        return {name.removeprefix("obs_"): cast(Standardizer, part) for name, part in self.standardizers.items()}

    def _standardize(self, key: str, value: torch.Tensor) -> torch.Tensor:
        name = f"obs_{key}"
        return self.standardizers[name](value) if name in self.standardizers else value


def is_vector(space: gym.Space[Any]) -> bool:
    """Return whether a space holds numbers that can be standardised."""
    return isinstance(space, spaces.Box) and not is_image_space(space)


def normalizer_of(policy: ActorCriticPolicy) -> NormalizedExtractor | None:
    """Return the policy's observation statistics, if it has any."""
    extractor = policy.features_extractor
    return extractor if isinstance(extractor, NormalizedExtractor) else None
