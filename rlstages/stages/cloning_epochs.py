"""The epochs of a cloning stage: `imitation` trains the learner's own policy in place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy

from rlstages.demonstrations.episodes import Observations, take
from rlstages.events import EpochFinished
from rlstages.learners.learner import Learner, Weights, arrays, tensors
from rlstages.learners.optimizers import load_optimizer_state, optimizer_state
from rlstages.specs.stages.cloning import BehaviorCloning
from rlstages.stages.cloning_data import MEASURED_AT_ONCE, CloningData

NO_EPOCHS = {"epoch": 0, "stale": 0, "losses": [], "best": None, "optimizer": None}
"""The state before the demonstrations are there."""


class CloningEpochs:
    """Trains a policy epoch by epoch, and remembers the weights of the best one.

    Args:
        stage: Says how.
        learner: Whose policy is trained.
        data: What it learns from.
        seed: Of the run.

    Attributes:
        data: As given.
        number: How many epochs have been trained.
        losses: What each was judged by: its loss on held-out episodes, or without any on those it learned from.
    """

    def __init__(self, stage: BehaviorCloning, learner: Learner, data: CloningData, seed: int) -> None:
        self.number = 0
        self.losses: list[float] = []
        self.data = data
        self._stage, self._learner = stage, learner
        self._stale = 0
        self._best: tuple[float, Weights] | None = None
        self._bc = _trainer(stage, learner.policy, data, seed)

    @property
    def exhausted(self) -> bool:
        """Whether as many epochs have been trained as may be."""
        return self.number == self._stage.max_epochs

    @property
    def over(self) -> bool:
        """Whether no further epoch is due."""
        return self.exhausted or self._stale == self._stage.patience

    def train(self) -> EpochFinished:
        """Train for one epoch, and judge it."""
        policy = self._learner.policy
        self.pass_over()
        if hasattr(policy, "log_std"):
            with torch.no_grad():
                policy.log_std.clamp_(min=self._stage.min_log_std)
        self.number += 1
        metrics = {"loss": measure(policy, *self.data.sample)["loss"]}
        if len(self.data.held_out[1]):
            measured = measure(policy, *self.data.held_out)
            metrics |= {"held_out_loss": measured.pop("loss"), **measured}
        judged = metrics.get("held_out_loss", metrics["loss"])
        self.losses.append(judged)
        improved = self._best is None or judged < self._best[0]
        if improved:
            self._best, self._stale = (judged, self._learner.weights()), 0
        else:
            self._stale += 1
        return EpochFinished(self.number, metrics, improved)

    def pass_over(self) -> None:
        """Learn from all batches of this epoch: by imitation, or by the algorithm, which may do the same faster."""
        batches = self.data.batches
        batches.epoch = self.number
        shown, weights = (batches.observations, batches.actions), (self._stage.entropy_weight, self._stage.l2_weight)
        if self._learner.algorithm.clone(*shown, batches.rows, self._bc.optimizer, *weights):
            return
        self._learner.policy.set_training_mode(True)
        with warnings.catch_warnings(), _unchecked_distributions():
            # imitation logs the first batch whatever the interval, and turns tensors into numbers as torch dislikes.
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad", UserWarning)
            # It warns of every batch of dictionaries, and then does the right thing.
            warnings.filterwarnings("ignore", "trying to unwrap object of type", UserWarning)
            self._bc.train(n_epochs=1, progress_bar=False, log_interval=1_000_000_000)

    def restore_best(self) -> None:
        """Give the policy the weights of the best epoch."""
        assert self._best is not None
        self._learner.load_policy(self._best[1])

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, the best weights and the optimiser, under the names of `NO_EPOCHS`."""
        return {
            "epoch": self.number,
            "stale": self._stale,
            "losses": list(self.losses),
            "best": None if self._best is None else {"loss": self._best[0], "weights": arrays(self._best[1])},
            "optimizer": optimizer_state(self._bc.optimizer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.number, self._stale, self.losses = state["epoch"], state["stale"], list(state["losses"])
        if state["best"] is not None:
            self._best = state["best"]["loss"], tensors(state["best"]["weights"])
        load_optimizer_state(self._bc.optimizer, state["optimizer"])


def _trainer(stage: BehaviorCloning, policy: ActorCriticPolicy, data: CloningData, seed: int) -> Any:
    """Return imitation's trainer of a policy."""
    from imitation.algorithms import bc
    from imitation.util.logger import HierarchicalLogger

    trainer = bc.BC(
        observation_space=policy.observation_space,
        action_space=policy.action_space,
        rng=np.random.default_rng(seed),
        policy=policy,
        batch_size=data.batches.batch_size,
        optimizer_kwargs={"lr": stage.learning_rate},
        ent_weight=stage.entropy_weight,
        l2_weight=stage.l2_weight,
        device=policy.device,
        custom_logger=HierarchicalLogger(Logger(None, [])),
    )
    batches: Any = data.batches
    trainer.set_demonstrations(batches)
    return trainer


@contextmanager
def _unchecked_distributions() -> Iterator[None]:
    """Leave out torch's checks of each batch: all actions have been checked, and the loss is measured with them."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def measure(policy: ActorCriticPolicy, observations: Observations, actions: np.ndarray) -> dict[str, float]:
    """Return how well a policy predicts actions.

    Args:
        policy: Measured, not changed.
        observations: First axis the transitions.
        actions: One for each of them, as `place_demonstrations` returns them.

    Returns:
        `loss`, the mean negative log likelihood in nats, and `accuracy` (share of actions that are the likeliest one)
        for discrete actions or `error` (root mean square, as a share of half the range) for continuous ones.
    """
    policy.set_training_mode(False)
    losses, hits = [], []
    for start in range(0, len(actions), MEASURED_AT_ONCE):
        rows = np.arange(start, min(start + MEASURED_AT_ONCE, len(actions)))
        seen, _ = policy.obs_to_tensor(take(observations, rows))
        done = torch.as_tensor(actions[rows], device=policy.device)
        with torch.no_grad():
            distribution = policy.get_distribution(seen)
            losses.append(-distribution.log_prob(done).cpu().numpy())
            off = (distribution.mode() - done).reshape(len(rows), -1).cpu().numpy()
        hits.append((off**2).mean(axis=1) if isinstance(policy.action_space, spaces.Box) else (off == 0).all(axis=1))
    loss, hit = float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())
    if isinstance(policy.action_space, spaces.Box):
        return {"loss": loss, "error": hit**0.5}
    return {"loss": loss, "accuracy": hit}
