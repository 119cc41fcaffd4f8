"""What carries the algorithm out: acting is inherited, the update is its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch.nn import functional

from rlstages.learners.algorithms.base import LossTerm
from rlstages.learners.algorithms.on_policy.algorithm import OnPolicy
from rlstages.learners.algorithms.on_policy.protocol import NORM, refuse_not_finite
from rlstages.learners.algorithms.on_policy.rollout import Rollout


class Reinforce(OnPolicy):
    """Acts as PPO does, and learns from all steps of a rollout at once.

    The loss is `-mean((G - V) log pi) + baseline_coef * mean((G - V)^2)`, where `G` are the discounted returns, and
    `V` the baseline's estimates of them.
    """

    def update(
        self, experience: Rollout, settings: Mapping[str, Any], terms: Sequence[LossTerm] = ()
    ) -> dict[str, float]:
        """Make one gradient step."""
        policy = self.policy
        policy.set_training_mode(True)
        experience.flatten()
        # Forward
        seen, _ = policy.obs_to_tensor(experience.observations)
        actions = torch.as_tensor(experience.actions, device=policy.device)
        if isinstance(policy.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        values, log_prob, entropy = policy.evaluate_actions(seen, actions)
        returns = torch.as_tensor(experience.returns, device=policy.device).flatten()
        # Loss
        policy_loss = -((returns - values.flatten()).detach() * log_prob).mean()
        baseline_loss = functional.mse_loss(values.flatten(), returns)
        loss = policy_loss + settings["baseline_coef"] * baseline_loss
        loss = loss + sum(term.loss(policy, seen) for term in terms)
        refuse_not_finite(loss.item())
        # Step
        optimizer = policy.optimizer
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"]
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), settings["max_grad_norm"])
        refuse_not_finite(norm.item(), NORM)
        optimizer.step()
        return {"policy_loss": policy_loss.item(), "value_loss": baseline_loss.item(), "entropy": entropy.mean().item()}
