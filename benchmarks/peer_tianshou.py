"""tianshou 2: its collector and its PPO, as its own `OnPolicyTrainer` calls them between two evaluations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from throughput import Contender
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step, torch_train_mode
from torch.distributions import Distribution, Independent, Normal

from rlstages import Environment
from rlstages.environments.make import make_environment


def contender(spec: Environment, settings: dict[str, Any]) -> Contender:
    """Return tianshou's PPO, one rollout and its update at a time."""
    n_envs, steps = settings["n_envs"], settings["n_envs"] * settings["n_steps"]
    envs = DummyVectorEnv([lambda: make_environment(spec)] * n_envs)
    envs.seed(0)
    torch.manual_seed(0)
    sees, acts = envs.observation_space[0], envs.action_space[0]
    policy, critic = networks(sees, acts)
    algorithm = PPO(
        policy=policy,
        critic=critic,
        optim=AdamOptimizerFactory(lr=3e-4, eps=1e-5),
        ent_coef=0.0,
        max_grad_norm=0.5,
    )
    collector = Collector(policy, envs, VectorReplayBuffer(steps, n_envs))
    collector.reset()

    def turn() -> None:
        with policy_within_training_step(policy):
            collector.collect(n_step=steps)
            with torch_train_mode(algorithm):
                algorithm.update(collector.buffer, settings["batch_size"], settings["n_epochs"])
        collector.reset_buffer(keep_statistics=True)

    def act(seen: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            likeliest = policy(Batch(obs=seen, info={})).dist.mode
        return policy.map_action(likeliest.numpy())

    return Contender(turn, act)


def networks(sees: spaces.Box, acts: spaces.Space[Any]) -> tuple[ProbabilisticActorPolicy, torch.nn.Module]:
    """Return a policy and a critic of two hidden layers each."""
    ahead, aside = (Net(state_shape=sees.shape, hidden_sizes=[64, 64], activation=torch.nn.Tanh) for _ in range(2))
    if isinstance(acts, spaces.Discrete):
        actor = DiscreteActor(preprocess_net=ahead, action_shape=int(acts.n), softmax_output=False)
        return DiscreteActorPolicy(actor=actor, action_space=acts), DiscreteCritic(preprocess_net=aside)
    mean = ContinuousActorProbabilistic(preprocess_net=ahead, action_shape=acts.shape, unbounded=True)
    policy = ProbabilisticActorPolicy(actor=mean, dist_fn=_normal, action_space=acts)
    return policy, ContinuousCritic(preprocess_net=aside)


def _normal(mean_and_std: tuple[torch.Tensor, torch.Tensor]) -> Distribution:
    return Independent(Normal(*mean_and_std), 1)
