"""The fast engine: small policies of linear layers on the CPU, in NumPy, without autograd.

It computes the same as the torch engine, up to float32 rounding (tests/learners/test_engines_numpy.py), but draws other
random numbers: those of its n-th rollout or update come from `numpy.random.default_rng([seed, 0x5EED, n])`, and those
of a player from `numpy.random.default_rng([seed of the player, 0x91A7])`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy

from rlstages.learners.algorithms.base import DemonstrationLoss, LossTerm, ReferenceKL, term_of
from rlstages.learners.algorithms.on_policy.flat import FlatOptimizer, numpy_arithmetic
from rlstages.learners.algorithms.on_policy.numpy.heads import Pull, numpy_head
from rlstages.learners.algorithms.on_policy.numpy.network import NumpyNetwork, array_features
from rlstages.learners.algorithms.on_policy.numpy.update import DemonstratedRows, Rows, Update
from rlstages.learners.algorithms.on_policy.protocol import (
    NORM,
    explained,
    refuse_not_finite,
    update_diagnostics,
    within,
)
from rlstages.learners.algorithms.on_policy.rollout import Rollout

_STREAM, _PLAYING = 0x5EED, 0x91A7


class NumpyEngine:
    """Acts and learns with NumPy, on the memory of the policy's parameters.

    Args:
        policy: Policy, which is changed in place.
        ppo: Whether to use PPO's loss instead of A2C's.
        seed: Seed of the random draws.
    """

    name = "numpy"

    def __init__(self, policy: ActorCriticPolicy, ppo: bool, seed: int) -> None:
        self.policy = policy
        self._ppo, self._seed, self._draws = ppo, seed, 0
        self._network = NumpyNetwork(policy)
        self._head = numpy_head(policy.action_space, self._network)
        self._optimizer: FlatOptimizer | None = None
        self._anchor: tuple[ActorCriticPolicy, NumpyNetwork] | None = None
        self._buffer: Any = None
        self._features: Callable[[np.ndarray], np.ndarray] = array_features(policy)
        self._raw, self._noise = np.empty(0, np.float32), np.empty(0, np.float32)

    # --- acting ------------------------------------------------------------------------------------------------

    def begin_rollout(self, buffer: Rollout) -> None:
        """Prepare for a rollout, and draw the noise for all of it."""
        self.policy.set_training_mode(False)
        self._buffer = buffer
        self._features = array_features(self.policy)
        steps, copies = buffer.buffer_size, buffer.n_envs
        self._noise = self._head.noise(self._generator(), steps, copies)
        self._raw = np.empty((steps, self._network.width, copies), np.float32)

    def act(self, step: int, observations: Any) -> np.ndarray:
        """Sample actions, and keep the actor's outputs."""
        raw = self._raw[step]
        self._network.act(self._features(observations), raw)
        return self._head.sample(raw, self._noise[step]).reshape(-1, *(self.policy.action_space.shape or ()))

    def end_rollout(self, cut_short: Sequence[Any], last: Any) -> np.ndarray:
        """Compute all values and log probabilities at once; see `Engine.end_rollout`."""
        buffer, network, space = self._buffer, self._network, self.policy.observation_space
        shape = space.shape or ()
        values = network.values(self._features(buffer.observations.reshape(-1, *shape)))
        buffer.values[:] = values.reshape(buffer.values.shape)
        raw = np.moveaxis(self._raw, 1, 0).reshape(network.width, -1)
        actions = self._head.prepare(buffer.actions.reshape(raw.shape[1], -1))
        buffer.log_probs[:] = self._head.log_prob(raw, actions).reshape(buffer.log_probs.shape)
        ends = [np.asarray(observation).reshape(1, *shape) for observation in cut_short]
        return network.values(self._features(np.concatenate([*ends, np.asarray(last).reshape(-1, *shape)])))

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function that acts like the current policy; see `Algorithm.player`."""
        network, head, space = self._network, self._head, self.policy.action_space
        features, generator = array_features(self.policy), np.random.default_rng([seed, _PLAYING])

        def act(observations: Any) -> np.ndarray:
            inputs = features(observations)
            raw = np.empty((network.width, len(inputs)), np.float32)
            network.act(inputs, raw)
            if deterministic:
                actions = head.likeliest(raw)
            else:
                actions = head.sample(raw, head.noise(generator, 1, len(inputs))[0])
            return within(space, actions.reshape(-1, *(space.shape or ())))

        return act

    # --- learning ----------------------------------------------------------------------------------------------

    def update(
        self,
        buffer: Rollout,
        settings: Mapping[str, Any],
        terms: Sequence[LossTerm] = (),
    ) -> dict[str, float]:
        """Learn from one rollout; see `Engine.update`."""
        # Settings of this update
        anchor, demonstrated = term_of(terms, ReferenceKL), term_of(terms, DemonstrationLoss)
        self.policy.set_training_mode(True)
        optimizer = self._moments(self.policy.optimizer)
        for group in self.policy.optimizer.param_groups:
            group["lr"] = settings["learning_rate"]
        weight = 0.0 if anchor is None else anchor.weight
        work = Update(self._network, self._head, optimizer, settings, Pull(settings["ent_coef"], weight), self._ppo)
        generator = self._generator()
        with numpy_arithmetic():
            data = self._data(buffer, anchor)
            size = len(data.returns)
            length = settings["batch_size"] if self._ppo else size
            # Update
            for _ in range(settings["n_epochs"] if self._ppo else 1):
                order, shown = self._order(generator, size), None
                if demonstrated is not None:
                    shown = self._shown(demonstrated, demonstrated.draw(generator, -(-size // length), length))
                if not work.epoch(data.rows(order), shown):
                    break
        return update_diagnostics(self.policy, buffer, work.means(), settings)

    def fit_critic(
        self, buffer: Rollout, optimizer: torch.optim.Optimizer, epochs: int, batch_size: int
    ) -> dict[str, float]:
        """Fit the critic; see `Engine.fit_critic`."""
        moments = self._moments(optimizer)
        self._network.flat.zero_gradients()
        generator, losses = self._generator(), []
        with numpy_arithmetic():
            data = self._data(buffer, None)
            for _ in range(epochs):
                order = self._order(generator, len(data.returns))
                inputs, returns = data.inputs[order], data.returns[order]
                for start in range(0, len(order), batch_size):
                    rows = slice(start, start + batch_size)
                    loss = self._network.critic_step(inputs[rows], returns[rows])
                    refuse_not_finite(loss)
                    refuse_not_finite(moments.clip(0.5), NORM)
                    moments.numpy_step()
                    losses.append(loss)
        moments.publish()
        return {"value_loss": float(np.mean(losses)), "explained_variance": explained(buffer)}

    def clone(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        batches: Sequence[np.ndarray],
        optimizer: torch.optim.Optimizer,
        entropy_weight: float,
        l2_weight: float,
    ) -> None:
        """Make one pass over demonstrations with the loss of imitation's `BC`.

        Args:
            observations: Observations; the first axis is the transitions.
            actions: Actions; the first axis is the transitions.
            batches: Row numbers of each gradient step.
            optimizer: Adam optimiser of all parameters.
            entropy_weight: Weight of the mean entropy, which is maximised.
            l2_weight: Weight of half the sum of squares of all parameters, which is minimised.
        """
        moments = self._moments(optimizer)
        network, head, flat = self._network, self._head, self._network.flat
        pull, weights = Pull(entropy_weight, 0.0), flat.values.numpy()
        inputs, done = array_features(self.policy)(observations), head.prepare(actions.reshape(len(actions), -1))
        gradients = flat.gradients.numpy()
        flat.zero_gradients()
        with numpy_arithmetic():
            for rows in batches:
                seen, taken = inputs[rows], done[:, rows]
                raw = np.empty(taken.shape, np.float32)
                network.act(seen, raw)
                log_prob = head.log_prob(raw, taken)
                if l2_weight:
                    gradients[:] = 0
                by_log_prob = np.full(len(rows), -1 / len(rows), np.float32)
                network.actor_backward(seen, head.backward(by_log_prob, taken, pull, None))
                if l2_weight:
                    gradients += l2_weight * weights
                refuse_not_finite(float(log_prob.mean()))
                refuse_not_finite(moments.clip(math.inf), NORM)
                moments.numpy_step()
        moments.publish()

    def state_dict(self) -> dict[str, Any]:
        """Return the seed, and the number of generators that have been made from it."""
        return {"seed": self._seed, "draws": self._draws}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._seed, self._draws = state["seed"], state["draws"]

    # --- pieces ------------------------------------------------------------------------------------------------

    def _generator(self) -> np.random.Generator:
        self._draws += 1
        return np.random.default_rng([self._seed, _STREAM, self._draws])

    def _order(self, generator: np.random.Generator, size: int) -> np.ndarray:
        return generator.permutation(size)

    def _moments(self, optimizer: torch.optim.Optimizer) -> FlatOptimizer:
        """Return the flat form of an optimiser, and make it if there is none yet."""
        if self._optimizer is None or self._optimizer.optimizer is not optimizer or not self._optimizer.in_force:
            self._optimizer = FlatOptimizer(optimizer, self._network.flat)
        return self._optimizer

    def _shown(self, given: DemonstrationLoss, rows: np.ndarray) -> DemonstratedRows:
        """Return demonstrated transitions by their row numbers, shape `(steps, m)`."""
        assert not isinstance(given.observations, dict)
        each = rows.reshape(-1)
        inputs, actions = self._features(given.observations[each]), given.actions[each].reshape(len(each), -1)
        prepared = self._head.prepare(actions)
        return DemonstratedRows(inputs.reshape(*rows.shape, -1), prepared.reshape(-1, *rows.shape), given.weight)

    def _data(self, buffer: Rollout, anchor: ReferenceKL | None) -> Rows:
        kept: Any = buffer
        kept.flatten()
        inputs = self._features(kept.observations)
        reference = None
        if anchor is not None:
            if self._anchor is None or self._anchor[0] is not anchor.policy:
                self._anchor = anchor.policy, NumpyNetwork(anchor.policy)
            network = self._anchor[1]
            reference = self._head.reference(network.actor(array_features(anchor.policy)(kept.observations)), network)
        return Rows(
            inputs,
            self._head.prepare(kept.actions.reshape(len(inputs), -1)),
            kept.log_probs.reshape(-1),
            kept.advantages.reshape(-1),
            kept.returns.reshape(-1),
            kept.values.reshape(-1),
            reference,
        )
