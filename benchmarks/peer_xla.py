"""PPO as one XLA program, environment included, in the manner of PureJaxRL (https://github.com/luchris429/purejaxrl).

One call of the compiled program plays a rollout and learns from it; with a whole run in one call, as there, it is 1 %
(D) to 10 % (Z) faster, and cannot be stopped in between. What it needs is an environment that is written in JAX:
CartPole and Pendulum are here, with gymnasium's equations in 32 bits. As in PureJaxRL, an episode that is cut short by
its time limit counts as one that ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from throughput import Contender

from rlstages import Environment

GAMMA, LAMBDA, CLIP, VALUE_WEIGHT = 0.99, 0.95, 0.2, 0.5
OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-4, eps=1e-5))
Array = jax.Array


@dataclass(frozen=True)
class Task:
    """An environment of one copy, as functions of its state.

    Attributes:
        begin: From a key to the first state.
        step: From a state and an action to the next state, the reward, and whether the episode ended.
        observe: From a state to what is seen.
        sees: Numbers seen.
        outputs: Of the actor.
        discrete: Whether there are that many actions, or an action has that many numbers.
        most_steps: Of an episode.
    """

    begin: Callable[[Array], Array]
    step: Callable[[Array, Array], tuple[Array, Array, Array]]
    observe: Callable[[Array], Array]
    sees: int
    outputs: int
    discrete: bool
    most_steps: int


def push_cart(state: Array, action: Array) -> tuple[Array, Array, Array]:
    """CartPole-v1's step."""
    x, x_dot, theta, theta_dot = state
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    push = (jnp.where(action == 1, 10.0, -10.0) + 0.05 * theta_dot**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    state = state + 0.02 * jnp.array([x_dot, push - 0.05 * turn * cos / 1.1, theta_dot, turn])
    return state, jnp.float32(1.0), (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 0.20943951)


def turn_pendulum(state: Array, action: Array) -> tuple[Array, Array, Array]:
    """Pendulum-v1's step."""
    angle, speed = state
    torque = jnp.clip(action[0], -2.0, 2.0)
    off = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    faster = jnp.clip(speed + (15.0 * jnp.sin(angle) + 3.0 * torque) * 0.05, -8.0, 8.0)
    return jnp.array([angle + faster * 0.05, faster]), -(off**2 + 0.1 * speed**2 + 0.001 * torque**2), jnp.bool_(False)


TASKS = {
    "CartPole-v1": Task(
        lambda key: jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05),
        push_cart,
        lambda state: state,
        sees=4,
        outputs=2,
        discrete=True,
        most_steps=500,
    ),
    "Pendulum-v1": Task(
        lambda key: jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0]),
        turn_pendulum,
        lambda state: jnp.array([jnp.cos(state[0]), jnp.sin(state[0]), state[1]]),
        sees=3,
        outputs=1,
        discrete=False,
        most_steps=200,
    ),
}


class Run(NamedTuple):
    """All that goes on from one rollout to the next."""

    weights: Any
    moments: Any
    states: Array
    lengths: Array
    key: Array


class Rollout(NamedTuple):
    """What was seen and done, shape `(n_steps, n_envs, ...)`; `ended` tells whether the step ended the episode."""

    seen: Array
    actions: Array
    log_probs: Array
    values: Array
    rewards: Array
    ended: Array


def contender(spec: Environment, settings: dict[str, int]) -> Contender:
    """Return the program, one rollout and its update at a time."""
    task = TASKS[spec.id]
    weights_key, states_key, key = jax.random.split(jax.random.key(0), 3)
    weights = {
        "actor": layers(weights_key, task.sees, task.outputs, 0.01),
        "critic": layers(jax.random.fold_in(weights_key, 1), task.sees, 1, 1.0),
        "log_std": jnp.zeros(task.outputs),
    }
    states = jax.vmap(task.begin)(jax.random.split(states_key, settings["n_envs"]))
    run = Run(weights, OPTIMIZER.init(weights), states, jnp.zeros(settings["n_envs"], int), key)
    program = jax.jit(lambda run: play_and_learn(task, settings, run))
    actor = jax.jit(forward)

    def turn() -> None:
        nonlocal run
        run = jax.block_until_ready(program(run))

    def act(seen: np.ndarray) -> np.ndarray:
        out = np.asarray(actor(run.weights["actor"], seen))
        return out.argmax(1) if task.discrete else out

    return Contender(turn, act)


def layers(key: Array, inputs: int, outputs: int, gain: float) -> list[tuple[Array, Array]]:
    """Return weights and biases of two hidden layers of 64 and a last one, initialised orthogonally."""
    sizes, gains = [inputs, 64, 64, outputs], [2**0.5, 2**0.5, gain]
    keys = jax.random.split(key, 3)
    return [
        (jax.nn.initializers.orthogonal(scale)(own, (fan_in, fan_out)), jnp.zeros(fan_out))
        for own, fan_in, fan_out, scale in zip(keys, sizes[:-1], sizes[1:], gains, strict=True)
    ]


def forward(weights: list[tuple[Array, Array]], seen: Array) -> Array:
    """Return what the last layer says of observations, shape `(..., outputs)`."""
    for weight, bias in weights[:-1]:
        seen = jnp.tanh(seen @ weight + bias)
    weight, bias = weights[-1]
    return seen @ weight + bias


def log_prob_of(task: Task, weights: Any, out: Array, actions: Array) -> Array:
    """Return the log probability of actions, shape `(...)`."""
    if task.discrete:
        return jnp.take_along_axis(jax.nn.log_softmax(out), actions[..., None], -1)[..., 0]
    return jax.scipy.stats.norm.logpdf(actions, out, jnp.exp(weights["log_std"])).sum(-1)


def play_and_learn(task: Task, settings: dict[str, int], run: Run) -> Run:
    """Play a rollout and learn from it."""
    run, rollout = jax.lax.scan(lambda run, _: play(task, run), run, None, settings["n_steps"])
    last = forward(run.weights["critic"], jax.vmap(task.observe)(run.states))[:, 0]
    advantages = estimate(rollout, last)
    data = (rollout.seen, rollout.actions, rollout.log_probs, advantages, advantages + rollout.values)
    data = jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:]), data)

    def one_batch(learned: tuple[Any, Any], batch: Any) -> tuple[tuple[Any, Any], None]:
        weights, moments = learned
        step, moments = OPTIMIZER.update(jax.grad(loss, argnums=1)(task, weights, *batch), moments)
        return (optax.apply_updates(weights, step), moments), None

    def one_epoch(learned: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
        order = jax.random.permutation(key, len(data[2]))
        batches = jax.tree.map(lambda each: each[order].reshape(-1, settings["batch_size"], *each.shape[1:]), data)
        return jax.lax.scan(one_batch, learned, batches)

    key, *keys = jax.random.split(run.key, 1 + settings["n_epochs"])
    (weights, moments), _ = jax.lax.scan(one_epoch, (run.weights, run.moments), jnp.stack(keys))
    return run._replace(weights=weights, moments=moments, key=key)


def play(task: Task, run: Run) -> tuple[Run, Rollout]:
    """Step all copies; an episode that ends is followed by the next one at once."""
    key, act_key, begin_key = jax.random.split(run.key, 3)
    seen = jax.vmap(task.observe)(run.states)
    out, values = forward(run.weights["actor"], seen), forward(run.weights["critic"], seen)[:, 0]
    if task.discrete:
        actions = jax.random.categorical(act_key, out)
    else:
        actions = out + jnp.exp(run.weights["log_std"]) * jax.random.normal(act_key, out.shape)
    states, rewards, terminated = jax.vmap(task.step)(run.states, actions)
    ended = terminated | (run.lengths + 1 >= task.most_steps)
    first = jax.vmap(task.begin)(jax.random.split(begin_key, len(ended)))
    states, lengths = jnp.where(ended[:, None], first, states), jnp.where(ended, 0, run.lengths + 1)
    kept = Rollout(seen, actions, log_prob_of(task, run.weights, out, actions), values, rewards, ended)
    return run._replace(states=states, lengths=lengths, key=key), kept


def estimate(rollout: Rollout, last: Array) -> Array:
    """Return generalised advantages (arXiv:1506.02438), shape `(n_steps, n_envs)`."""

    def back(ahead: tuple[Array, Array], step: Rollout) -> tuple[tuple[Array, Array], Array]:
        advantage, following = ahead
        going_on = GAMMA * (1.0 - step.ended)
        advantage = step.rewards + going_on * following - step.values + going_on * LAMBDA * advantage
        return (advantage, step.values), advantage

    return jax.lax.scan(back, (jnp.zeros_like(last), last), rollout, reverse=True)[1]


def loss(task: Task, weights: Any, seen: Array, actions: Array, old: Array, advantages: Array, wanted: Array) -> Array:
    """Return PPO's loss (arXiv:1707.06347) of a minibatch."""
    ratio = jnp.exp(log_prob_of(task, weights, forward(weights["actor"], seen), actions) - old)
    advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    gain = jnp.minimum(advantages * ratio, advantages * jnp.clip(ratio, 1 - CLIP, 1 + CLIP)).mean()
    return VALUE_WEIGHT * ((forward(weights["critic"], seen)[:, 0] - wanted) ** 2).mean() - gain
