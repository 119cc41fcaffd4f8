"""CartPole with its physics as arguments, and an expert that balances it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.wrappers import TimeLimit
from scipy.linalg import solve_discrete_are

STATE_COST = np.diag([1.0, 1.0, 10.0, 1.0])
"""What `balance` pays per step for cart position (m^2), speed, pole angle (rad^2) and angular speed."""

PUSH_COST = 100.0
"""What `balance` pays for a full push, whatever its force in newtons."""


class CartPole(CartPoleEnv):
    """Gymnasium's CartPole with other physics; observations, actions, rewards and limits are the same.

    Source: https://gymnasium.farama.org/environments/classic_control/cart_pole/

    Args:
        pole_length: Half the pole's length, in metres, as gymnasium counts it.
        force: The push of either action, in newtons.
        gravity: In metres per second squared.
        pole_mass: In kilograms; the cart weighs 1 kg.
        render_mode: `None`, `"human"` or `"rgb_array"`.

    Raises:
        ValueError: If one of the physical quantities is not positive.
    """

    def __init__(
        self,
        pole_length: float = 0.5,
        force: float = 10.0,
        gravity: float = 9.8,
        pole_mass: float = 0.1,
        render_mode: str | None = None,
    ) -> None:
        given = {"pole_length": pole_length, "force": force, "gravity": gravity, "pole_mass": pole_mass}
        for name, value in given.items():
            if not value > 0:
                raise ValueError(f"{name} is {value!r}; it must be positive")
        super().__init__(render_mode=render_mode)
        self.length = pole_length
        self.force_mag = force
        self.gravity = gravity
        self.masspole = pole_mass
        # CartPoleEnv computes these two once, from its own numbers.
        self.total_mass = self.masspole + self.masscart
        self.polemass_length = self.masspole * self.length


def cartpole(
    pole_length: float = 0.5,
    force: float = 10.0,
    gravity: float = 9.8,
    pole_mass: float = 0.1,
    max_steps: int = 500,
    render_mode: str | None = None,
) -> gym.Env[Any, Any]:
    """Make a CartPole; the defaults are `CartPole-v1`.

    Observations are `(x, x_dot, theta, theta_dot)`, shape `(4,)`, float32, in metres, radians and seconds. Actions
    are 0 (push left) and 1 (push right). The reward is 1 a step, so the return is at most `max_steps`.

    Args:
        pole_length: Half the pole's length, in metres, as gymnasium counts it.
        force: The push of either action, in newtons.
        gravity: In metres per second squared.
        pole_mass: In kilograms; the cart weighs 1 kg.
        max_steps: Steps until the episode is truncated.
        render_mode: `None`, `"human"` or `"rgb_array"`.

    Raises:
        ValueError: If one of the physical quantities is not positive.
    """
    return TimeLimit(CartPole(pole_length, force, gravity, pole_mass, render_mode), max_steps)


def balance(env: gym.Env[Any, Any]) -> Callable[[np.ndarray], int]:
    """Make the expert: the sign of a linear-quadratic regulator for the physics of `env`.

    Args:
        env: A CartPole, wrapped or not.

    Returns:
        A function from an observation, shape `(4,)`, to 0 (push left) or 1 (push right). It keeps no state.
    """
    gain = regulator(env.unwrapped)
    return lambda observation: int(gain @ observation > 0)


def regulator(sim: Any) -> np.ndarray:
    """Compute the feedback gain for the equations of `CartPoleEnv.step`, linearised about the upright pole.

    Source of the equations: https://coneural.org/florian/papers/05_cart_pole.pdf

    Args:
        sim: A `CartPoleEnv`, not wrapped.

    Returns:
        The gain, shape `(4,)`: the best push, as a fraction of the full one, is its product with the observation.
    """
    inertia = sim.length * (4 / 3 - sim.masspole / sim.total_mass)
    lever = sim.polemass_length / sim.total_mass
    fall = sim.gravity / inertia
    push = sim.force_mag / sim.total_mass
    tilt = -push / inertia
    state = np.eye(4) + sim.tau * np.array(
        [[0, 1, 0, 0], [0, 0, -lever * fall, 0], [0, 0, 0, 1], [0, 0, fall, 0]], dtype=float
    )
    control = sim.tau * np.array([[0.0], [push - lever * tilt], [0.0], [tilt]])
    cost = solve_discrete_are(state, control, STATE_COST, np.array([[PUSH_COST]]))
    gain = np.linalg.solve(PUSH_COST + control.T @ cost @ control, control.T @ cost @ state)
    return np.asarray(-gain[0])
