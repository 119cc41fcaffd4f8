"""The losses of PPO and A2C in torch, and the diagnostics of an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional

from rlstages.learners.algorithms.base import DemonstrationLoss, ReferenceKL
from rlstages.learners.algorithms.on_policy.torch.batches import FORWARD_ROWS, Batch
from rlstages.learners.algorithms.on_policy.torch.heads import TorchHead


class Objective:
    """The loss that one update minimises.

    PPO's loss is, with r = exp(log_prob - old_log_prob) and the advantages A standardised in each minibatch,

        -mean(min(r * A, clip(r, 1 - clip_range, 1 + clip_range) * A))
        + vf_coef * mean((returns - V)^2) - ent_coef * mean(entropy)
        + anchor_kl * mean(KL(policy || reference)) - demonstration_loss * mean(log_prob of demonstrated actions)

    With `clip_range_vf`, V moves at most this far from its old value. In A2C's loss, the first line is
    -mean(A * log_prob), and A is not standardised.

    Args:
        policy: Policy that is trained.
        head: Action distribution of the policy.
        settings: Settings of the algorithm; see `Engine.update`.
        anchor: Term for the reference policy, or `None`.
        demonstrated: Term for demonstrations, or `None`.
        ppo: Whether to use PPO's loss instead of A2C's.
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        head: TorchHead,
        settings: Mapping[str, Any],
        anchor: ReferenceKL | None,
        demonstrated: DemonstrationLoss | None,
        ppo: bool,
    ) -> None:
        self._policy, self._head, self._settings, self._ppo = policy, head, settings, ppo
        self._anchor, self._demonstrated = anchor, demonstrated
        self._sums: dict[str, float] = {}
        self._measured = 0
        self._sizes: list[int] = []
        self._scalars: dict[str, list[torch.Tensor]] = {}
        self._rows: dict[str, list[torch.Tensor]] = {}

    def loss(self, raw: torch.Tensor, values: torch.Tensor, batch: Batch) -> torch.Tensor | None:
        """Return the loss, or `None` if the policy has moved further than `target_kl` allows and the update must end.

        Args:
            raw: Outputs of the actor's last layer, shape `(n, width)`, with `m` more rows for demonstrations.
            values: Values of the critic, shape `(n,)`.
            batch: Minibatch.
        """
        settings = self._settings
        if sum(self._sizes) >= FORWARD_ROWS:
            self._measure()
        self._sizes.append(len(values))
        raw, shown = (raw, None) if batch.shown is None else (raw[: len(values)], raw[len(values) :])
        # Policy loss, value loss and entropy bonus
        given = self._head.distribution(raw, self._policy)
        log_prob = self._head.log_prob(given, batch.actions)
        policy_loss, near = self._clipped_loss(log_prob, batch) if self._ppo else _plain_loss(log_prob, batch)
        value_loss = functional.mse_loss(batch.returns, self._near_old(values, batch.old_values))
        loss = policy_loss
        if settings["ent_coef"] != 0:
            loss = loss + settings["ent_coef"] * -torch.mean(self._head.entropy(given))
        loss = loss + settings["vf_coef"] * value_loss
        self._note(self._scalars, policy_loss=policy_loss, value_loss=value_loss)
        # Reference policy
        if self._anchor is not None:
            assert batch.reference is not None
            reference = self._head.distribution(batch.reference, self._anchor.policy)
            divergence = self._head.divergence(given, reference).mean()
            loss = loss + self._anchor.weight * divergence
            self._note(self._scalars, anchor_kl=divergence)
        # Demonstrations
        if self._demonstrated is not None:
            assert batch.shown is not None and shown is not None
            shown_given = self._head.distribution(shown, self._policy)
            unlikeliness = -self._head.log_prob(shown_given, batch.shown.actions).mean()
            loss = loss + self._demonstrated.weight * unlikeliness
            self._note(self._scalars, demonstration_loss=unlikeliness)
        self._note(self._rows, raw=raw)
        return loss if near else None

    def means(self) -> dict[str, float]:
        """Return the diagnostics by name, as means over the minibatches."""
        self._measure()
        return {name: value / self._measured for name, value in self._sums.items()}

    # --- pieces ------------------------------------------------------------------------------------------------

    def _clipped_loss(self, log_prob: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, bool]:
        """Return PPO's policy loss, and whether the policy has stayed within `target_kl`."""
        advantages, clip_range = batch.advantages, self._settings["clip_range"]
        if len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - batch.old_log_prob
        ratio = torch.exp(log_ratio)
        clipped = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
        self._note(self._rows, log_ratio=log_ratio)
        near = True
        if "target_kl" in self._settings:
            with torch.no_grad():
                near = torch.mean((ratio - 1) - log_ratio).item() <= 1.5 * self._settings["target_kl"]
        return -torch.min(advantages * ratio, clipped).mean(), near

    def _near_old(self, values: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        """Clip the change of values to `clip_range_vf`, if that is set."""
        most = self._settings.get("clip_range_vf")
        return values if most is None else old + torch.clamp(values - old, -most, most)

    def _measure(self) -> None:
        """Add up the diagnostics of several minibatches at once, because each call of torch costs time."""
        rows = {name: torch.cat(parts) for name, parts in self._rows.items()}
        each = np.repeat(1 / np.array(self._sizes), self._sizes).astype(np.float32)
        weights = torch.as_tensor(each, device=rows["raw"].device)
        with torch.no_grad():
            terms = {"entropy": self._head.entropy(self._head.distribution(rows["raw"], self._policy))}
            if self._ppo:
                log_ratio = rows["log_ratio"]
                ratio = torch.exp(log_ratio)
                terms["approx_kl"] = (ratio - 1) - log_ratio
                terms["clip_fraction"] = ((ratio - 1).abs() > self._settings["clip_range"]).float()
        sums = {name: torch.dot(values, weights) for name, values in terms.items()}
        sums |= {name: torch.stack(values).sum() for name, values in self._scalars.items()}
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._measured += len(self._sizes)
        for noted in (self._sizes, self._rows, self._scalars):
            noted.clear()

    @staticmethod
    def _note(where: dict[str, list[torch.Tensor]], **values: torch.Tensor) -> None:
        for name, value in values.items():
            where.setdefault(name, []).append(value.detach())


def _plain_loss(log_prob: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, bool]:
    """Return A2C's policy loss, and `True`, because A2C has no `target_kl`."""
    return -(batch.advantages * log_prob).mean(), True
