"""Random minibatches of a rollout, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from rlstages.demonstrations.episodes import take
from rlstages.learners.algorithms.base import DemonstrationLoss, ReferenceKL
from rlstages.learners.algorithms.on_policy.rollout import Rollout
from rlstages.learners.algorithms.on_policy.torch.features import sees_vectors, tensor_features
from rlstages.learners.algorithms.on_policy.torch.heads import TorchHead

FORWARD_ROWS = 4096


class DemonstratedBatch(NamedTuple):
    """Demonstrated transitions: features and actions, shape `(m, width)`."""

    features: Any
    actions: torch.Tensor


class Batch(NamedTuple):
    """A minibatch of a rollout.

    Features, actions and `reference` (the outputs of the reference policy) have the shape `(n, width)`, and all others
    except `shown` have the shape `(n,)`.
    """

    features: Any
    actions: torch.Tensor
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    old_values: torch.Tensor
    reference: torch.Tensor | None
    shown: DemonstratedBatch | None


class Minibatches:
    """A rollout from which minibatches are drawn.

    Args:
        policy: Policy that extracts the features. If no parameter is involved, it does so only once.
        head: Action distribution, which converts the actions.
        buffer: Full rollout.
        anchor: Reference policy, whose outputs are part of the minibatches, or `None`.
        demonstrated: Demonstrations, of which random rows are part of the minibatches, or `None`.
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        head: TorchHead,
        buffer: Rollout,
        anchor: ReferenceKL | None = None,
        demonstrated: DemonstrationLoss | None = None,
    ) -> None:
        kept: Any = buffer
        kept.flatten()
        device = policy.device
        self._head, self._demonstrated = head, demonstrated
        self._size = len(kept.advantages)
        self._observations: Any = obs_as_tensor(kept.observations, device)
        self._actions = head.actions(torch.as_tensor(kept.actions, device=device))
        columns = [kept.log_probs, kept.advantages, kept.returns, kept.values]
        self._columns = torch.as_tensor(np.stack([column.reshape(-1) for column in columns]), device=device)
        self._reference: torch.Tensor | None = None
        self._features: Callable[[Any], Any] = tensor_features(policy)
        self._shown_features = self._features
        with torch.no_grad():
            if anchor is not None:
                rows = torch.split(torch.arange(self._size, device=device), FORWARD_ROWS)
                self._reference = torch.cat([_outputs(anchor.policy, _take(self._observations, some)) for some in rows])
            if sees_vectors(policy):
                self._observations = self._features(self._observations)
                self._features = lambda features: features

    def draw(self, epochs: int, batch_size: int | None) -> Iterator[Batch]:
        """Yield random minibatches, in the order in which stable-baselines3 draws them from NumPy's generator.

        Args:
            epochs: Number of passes over the rollout.
            batch_size: Rows per minibatch, except perhaps the last; `None` for the whole rollout.
        """
        for _ in range(epochs):
            order = torch.as_tensor(np.random.permutation(self._size), device=self._columns.device)
            parts = torch.split(order, batch_size or self._size)
            shown: Sequence[np.ndarray | None] = [None] * len(parts)
            if self._demonstrated is not None:
                # Use NumPy's global generator, as for the order of the rows.
                generator = np.random.Generator(np.random.get_bit_generator())  # type: ignore[attr-defined]
                shown = list(self._demonstrated.draw(generator, len(parts), batch_size or self._size))
            yield from map(self._rows, parts, shown)

    def _rows(self, rows: torch.Tensor, shown: np.ndarray | None) -> Batch:
        old_log_prob, advantages, returns, old_values = self._columns.index_select(1, rows).unbind(0)
        return Batch(
            self._features(_take(self._observations, rows)),
            self._actions.index_select(0, rows),
            old_log_prob,
            advantages,
            returns,
            old_values,
            None if self._reference is None else self._reference.index_select(0, rows),
            None if shown is None else self._shown(shown),
        )

    def _shown(self, rows: np.ndarray) -> DemonstratedBatch:
        assert self._demonstrated is not None
        device = self._columns.device
        actions = torch.as_tensor(self._demonstrated.actions[rows].reshape(len(rows), -1), device=device)
        observations: Any = take(self._demonstrated.observations, rows)
        return DemonstratedBatch(self._shown_features(obs_as_tensor(observations, device)), self._head.actions(actions))


def _outputs(policy: ActorCriticPolicy, observations: Any) -> torch.Tensor:
    """Return the outputs of the actor's last layer."""
    features: Any = policy.extract_features(observations)
    return policy.action_net(policy.mlp_extractor.forward_actor(features))  # type: ignore[no-any-return]


def _take(observations: Any, rows: torch.Tensor) -> Any:
    if isinstance(observations, dict):
        return {key: value.index_select(0, rows) for key, value in observations.items()}
    return observations.index_select(0, rows)
