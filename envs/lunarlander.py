"""Continuous LunarLander with wind and gravity as arguments, and gymnasium's own heuristic as the expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np


def lunarlander(
    wind_power: float = 0.0,
    turbulence_power: float = 1.5,
    gravity: float = -10.0,
    render_mode: str | None = None,
) -> gym.Env[np.ndarray, np.ndarray]:
    """Make a lander with two continuous engines; an episode is a function of its seed and the actions since.

    Observations have shape `(8,)`, float32: scaled position, velocity, angle and angular velocity, and the contact
    of each leg. Actions have shape `(2,)`, float32 in -1..1: main and side engines. A return of 200 counts as solved;
    episodes are truncated after 1000 steps. This is `LunarLander-v3`, or `-v2` where gymnasium has no v3.

    Source: https://gymnasium.farama.org/environments/box2d/lunar_lander/

    Args:
        wind_power: Largest sideways force, as gymnasium counts it: 0 (no wind, and no turbulence) to 20.
        turbulence_power: Largest torque when there is wind, 0 to 2.
        gravity: Between -12 and 0, both excluded.
        render_mode: `None`, `"human"` or `"rgb_array"`.

    Raises:
        ImportError: If Box2D is not installed.
        ValueError: If `wind_power` is negative, or `gravity` out of range.
    """
    if wind_power < 0:
        raise ValueError(f"wind_power is {wind_power!r}; it must not be negative")
    if not -12 < gravity < 0:
        raise ValueError(f"gravity is {gravity!r}; it must be between -12 and 0")
    _require_box2d()
    env = gym.make(
        "LunarLander-v3" if "LunarLander-v3" in gym.registry else "LunarLander-v2",
        render_mode=render_mode,
        disable_env_checker=True,
        continuous=True,
        gravity=gravity,
        enable_wind=wind_power > 0,
        wind_power=wind_power,
        turbulence_power=turbulence_power,
    )
    return SeededEpisodes(env)


def land(env: gym.Env[Any, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Make the expert: the heuristic controller that ships with gymnasium's LunarLander.

    It steers for a point above the pad, and knows nothing of wind.

    Source: https://github.com/Farama-Foundation/Gymnasium/blob/main/gymnasium/envs/box2d/lunar_lander.py

    Args:
        env: A continuous LunarLander, wrapped or not.

    Returns:
        A function from an observation, shape `(8,)`, to an action, shape `(2,)`, float32. It keeps no state.

    Raises:
        ImportError: If Box2D is not installed.
    """
    _require_box2d()
    from gymnasium.envs.box2d.lunar_lander import heuristic

    sim = env.unwrapped
    return lambda observation: np.asarray(heuristic(sim, observation), np.float32)


class SeededEpisodes(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Gives every episode of a LunarLander a world of its own and a wind drawn from its own seed.

    Gymnasium before 1.0 keeps the Box2D world from one episode to the next, which leaves traces in the contacts
    (https://github.com/Farama-Foundation/Gymnasium/issues/728), and draws the phase of the wind once per environment,
    from NumPy's global generator. Where gymnasium does better, episodes are the same as without this wrapper.

    Args:
        env: A LunarLander, wrapped or not.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        # Without this, the spec of the environment cannot make another one.
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        sim: Any = env.unwrapped
        # The newer LunarLander has no phase before its first reset, and draws one in each.
        self._draw_wind = hasattr(sim, "wind_idx")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: What the episode depends on; without it, the generator goes on from where it is.
            options: Passed on.

        Returns:
            The first observation and the info.
        """
        sim: Any = self.unwrapped
        # Seeds the generator and does nothing else: the wind has to be drawn from it before the lander's own reset,
        # which already takes a first step.
        gym.Env.reset(sim, seed=seed)
        if self._draw_wind:
            sim.wind_idx, sim.torque_idx = (int(phase) for phase in sim.np_random.integers(-9999, 9999, 2))
        sim._destroy()
        sim.world = type(sim.world)(gravity=(0, sim.gravity))
        return self.env.reset(options=options)


def _require_box2d() -> None:
    try:
        import Box2D  # noqa: F401
    except ImportError as error:
        raise ImportError('Box2D is not installed; run: pip install "rlstages[box2d]"') from error
