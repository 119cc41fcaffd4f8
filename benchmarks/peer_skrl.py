"""skrl 2: its PPO in its own trainer, with gymnasium's vector environment, neither writing nor saving anything."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from skrl import config
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer, SequentialTrainerCfg
from throughput import Contender
from torch import nn
from torch.distributions import Distribution

from rlstages import Environment
from rlstages.environments.make import make_environment

# skrl turns the checks of all of torch's distributions off when it is imported, which would make other contenders
# faster than their users find them.
Distribution.set_default_validate_args(__debug__)


def contender(spec: Environment, settings: dict[str, Any]) -> Contender:
    """Return skrl's PPO, one rollout and its update at a time."""
    n_envs, n_steps = settings["n_envs"], settings["n_steps"]
    config.torch.device = "cpu"
    torch.manual_seed(0)
    envs = wrap_env(SyncVectorEnv([lambda: make_environment(spec)] * n_envs), verbose=False)
    kind = Categorical if isinstance(envs.action_space, gym.spaces.Discrete) else Gaussian
    spaces = {"observation_space": envs.observation_space, "action_space": envs.action_space}
    policy = kind(**spaces)
    agent = PPO(
        models={"policy": policy, "value": Value(**spaces)},
        memory=RandomMemory(memory_size=n_steps, num_envs=n_envs, device="cpu"),
        device="cpu",
        cfg=PPO_CFG(
            rollouts=n_steps,
            learning_epochs=settings["n_epochs"],
            mini_batches=n_steps * n_envs // settings["batch_size"],
            learning_rate=3e-4,
            value_clip=0.0,
            value_loss_scale=0.5,
            time_limit_bootstrap=True,
            experiment={"write_interval": 0, "checkpoint_interval": 0},
        ),
        **spaces,
    )
    trainer = SequentialTrainer(
        env=envs,
        agents=agent,
        cfg=SequentialTrainerCfg(
            timesteps=n_steps, headless=True, disable_progressbar=True, close_environment_at_exit=False
        ),
    )

    def turn() -> None:
        Distribution.set_default_validate_args(False)
        trainer.train()
        Distribution.set_default_validate_args(__debug__)

    def act(seen: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out = policy.net(torch.as_tensor(seen))
        return out.argmax(1).numpy() if kind is Categorical else out.numpy()

    return Contender(turn, act)


class Network(Model):
    """Two hidden layers."""

    def __init__(self, outputs: int | None = None, **spaces: gym.Space) -> None:
        Model.__init__(self, device="cpu", **spaces)
        last = nn.Linear(64, outputs or self.num_actions)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), last)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return what the last layer says of observations."""
        return self.net(inputs["observations"]), {}


class Categorical(CategoricalMixin, Network):
    """A policy of discrete actions."""

    def __init__(self, **spaces: gym.Space) -> None:
        Network.__init__(self, **spaces)
        CategoricalMixin.__init__(self)


class Gaussian(GaussianMixin, Network):
    """A policy of continuous actions, with a spread that does not depend on the observation."""

    def __init__(self, **spaces: gym.Space) -> None:
        Network.__init__(self, **spaces)
        GaussianMixin.__init__(self)
        self.log_std = nn.Parameter(torch.zeros(self.num_actions))

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return means, and the logarithm of the spread."""
        return self.net(inputs["observations"]), {"log_std": self.log_std}


class Value(DeterministicMixin, Network):
    """The critic."""

    def __init__(self, **spaces: gym.Space) -> None:
        Network.__init__(self, outputs=1, **spaces)
        DeterministicMixin.__init__(self)
