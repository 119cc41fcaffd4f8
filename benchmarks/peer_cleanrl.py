"""PPO in one loop on tensors, in the manner of CleanRL's `ppo.py` (https://github.com/vwxyzjn/cleanrl).

It does what that file does, in its order, with the settings of stable-baselines3: no clipping of values, no annealing.
As there, an episode that is cut short by its time limit counts as one that ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from throughput import Contender
from torch import nn
from torch.distributions import Categorical, Normal

from rlstages import Environment
from rlstages.environments.make import make_environment

LEARNING_RATE, GAMMA, LAMBDA, CLIP, VALUE_WEIGHT, MAX_NORM = 3e-4, 0.99, 0.95, 0.2, 0.5, 0.5


class ActorCritic(nn.Module):
    """Two networks of two hidden layers.

    Args:
        sees: Observation space.
        acts: Action space, Discrete or Box.
    """

    def __init__(self, sees: gym.Space, acts: gym.Space) -> None:
        super().__init__()
        self.discrete = isinstance(acts, gym.spaces.Discrete)
        outputs = int(acts.n) if self.discrete else int(np.prod(acts.shape))
        self.critic = layers(int(np.prod(sees.shape)), 1, 1.0)
        self.actor = layers(int(np.prod(sees.shape)), outputs, 0.01)
        self.log_std = nn.Parameter(torch.zeros(1, outputs))

    def forward(
        self, seen: torch.Tensor, action: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return actions, their log probabilities, entropies and values."""
        out = self.actor(seen)
        policy = Categorical(logits=out) if self.discrete else Normal(out, self.log_std.expand_as(out).exp())
        if action is None:
            action = policy.sample()
        log_prob, entropy = policy.log_prob(action), policy.entropy()
        if not self.discrete:
            log_prob, entropy = log_prob.sum(1), entropy.sum(1)
        return action, log_prob, entropy, self.critic(seen)


def layers(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    """Return two hidden layers of 64 with tanh and a last layer, initialised orthogonally."""
    sizes, gains = [inputs, 64, 64, outputs], [2**0.5, 2**0.5, gain]
    made: list[nn.Module] = []
    for fan_in, fan_out, scale in zip(sizes[:-1], sizes[1:], gains, strict=True):
        layer = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
        made += [layer, nn.Tanh()]
    return nn.Sequential(*made[:-1])


def contender(spec: Environment, settings: dict[str, Any]) -> Contender:
    """Return the loop, one rollout and its update at a time."""
    n_envs, n_steps = settings["n_envs"], settings["n_steps"]
    envs = SyncVectorEnv([_maker(spec)] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    torch.manual_seed(0)
    sees, acts = envs.single_observation_space, envs.single_action_space
    agent = ActorCritic(sees, acts)
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE, eps=1e-5)
    observations = torch.zeros((n_steps, n_envs, *sees.shape))
    actions = torch.zeros((n_steps, n_envs, *acts.shape))
    log_probs, rewards, dones, values = (torch.zeros((n_steps, n_envs)) for _ in range(4))
    seen, done = torch.Tensor(envs.reset(seed=0)[0]), torch.zeros(n_envs)

    def turn() -> None:
        nonlocal seen, done
        for step in range(n_steps):
            observations[step], dones[step] = seen, done
            with torch.no_grad():
                action, log_probs[step], _, value = agent(seen)
            actions[step], values[step] = action, value.flatten()
            following, reward, terminated, truncated, _ = envs.step(action.numpy())
            rewards[step] = torch.tensor(reward)
            seen, done = torch.Tensor(following), torch.Tensor(terminated | truncated)
        with torch.no_grad():
            advantages = estimate(rewards, values, dones, agent.critic(seen).flatten(), done)
        rollout = [
            each.reshape(n_steps * n_envs, *each.shape[2:])
            for each in (observations, actions, log_probs, advantages, advantages + values)
        ]
        learn(agent, optimizer, rollout, settings["batch_size"], settings["n_epochs"])

    def act(seen: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out = agent.actor(torch.as_tensor(seen))
        return out.argmax(1).numpy() if agent.discrete else out.numpy()

    return Contender(turn, act)


def estimate(
    rewards: torch.Tensor, values: torch.Tensor, dones: torch.Tensor, last: torch.Tensor, done: torch.Tensor
) -> torch.Tensor:
    """Return generalised advantages (arXiv:1506.02438), shape `(n_steps, n_envs)`."""
    advantages, ahead = torch.zeros_like(rewards), 0.0
    for step in reversed(range(len(rewards))):
        final = step == len(rewards) - 1
        going_on = 1.0 - (done if final else dones[step + 1])
        delta = rewards[step] + GAMMA * (last if final else values[step + 1]) * going_on - values[step]
        advantages[step] = ahead = delta + GAMMA * LAMBDA * going_on * ahead
    return advantages


def learn(
    agent: ActorCritic, optimizer: torch.optim.Optimizer, rollout: list[torch.Tensor], batch_size: int, epochs: int
) -> tuple[float, float]:
    """Go over the rollout in shuffled minibatches; return how far the policy moved, and how often it was held."""
    clipped = []
    order = np.arange(len(rollout[0]))
    for _ in range(epochs):
        np.random.shuffle(order)
        for start in range(0, len(order), batch_size):
            seen, action, old, advantage, wanted = (each[order[start : start + batch_size]] for each in rollout)
            _, log_prob, entropy, value = agent(seen, action)
            log_ratio = log_prob - old
            ratio = log_ratio.exp()
            with torch.no_grad():
                moved = ((ratio - 1) - log_ratio).mean()
                clipped.append(((ratio - 1.0).abs() > CLIP).float().mean().item())
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            gain = torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = gain - 0.0 * entropy.mean() + VALUE_WEIGHT * ((value.view(-1) - wanted) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_NORM)
            optimizer.step()
    return moved.item(), float(np.mean(clipped))


def _maker(spec: Environment) -> Callable[[], gym.Env]:
    def make() -> gym.Env:
        env = make_environment(spec)
        return gym.wrappers.ClipAction(env) if isinstance(env.action_space, gym.spaces.Box) else env

    return make
