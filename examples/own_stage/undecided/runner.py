"""What carries the stage out, one epoch a step."""

from collections.abc import Mapping
from typing import Any

import torch

from rlstages.demonstrations.fitting import place_demonstrations
from rlstages.events import EpochFinished
from rlstages.learners.optimizers import load_optimizer_state, optimizer_state
from rlstages.play.chance_and_expert import play_at_random
from rlstages.stages.context import StageContext
from rlstages.stages.runner import Result


class UndecidedRunner:
    """Runs an `Undecided` stage."""

    def __init__(self, context: StageContext) -> None:
        self.stage_steps, self.result = 0, None
        self.context, self.spec = context, context.spec
        policy, spec = context.learner.policy, self.spec
        # The same seed plays the same episodes, so they need not be saved.
        shown = play_at_random(spec.environment, spec.episodes, context.seed, context.number)
        fitted = place_demonstrations("chance", shown, policy.observation_space, context.learner.action_space)
        self.seen, _ = policy.obs_to_tensor(fitted.transitions()[0])
        self.epoch = 0
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=spec.learning_rate)

    def step(self) -> None:
        """Make one pass over the observations; after the last, hand the policy over."""
        learner = self.context.learner
        entropy = learner.policy.get_distribution(self.seen).entropy().mean()
        self.optimizer.zero_grad()
        (-entropy).backward()
        self.optimizer.step()
        self.epoch += 1
        self.context.emit(EpochFinished(self.epoch, {"loss": -entropy.item()}, best=True))
        if self.epoch == self.spec.max_epochs:
            learner.hand_over()
            self.result = Result("completed", f"The entropy was {entropy.item():.3f}.", None, None, None)

    def state_dict(self) -> dict[str, Any]:
        """Return what `step` depends on besides the learner."""
        return {"epoch": self.epoch, "optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.epoch = state["epoch"]
        load_optimizer_state(self.optimizer, state["optimizer"])

    def close(self) -> None:
        """Let go of nothing: no environment is open between two steps."""
