"""One task in many units of action, and environments with spaces of many kinds, found by workers as `robots:name`."""

import gymnasium as gym
import numpy as np
import toys
from gymnasium import spaces

from rlstages.environments.batched_env import BatchedEnv

UNEQUAL = {"low": [-1.0, 5.0], "high": [200.0, 5.5]}


def bounded(low, high, dtype="float32", shape=(2,)):
    return spaces.Box(*(np.broadcast_to(np.array(end, dtype), shape) for end in (low, high)), shape, np.dtype(dtype))


class Arm(toys.Echo):
    """An `Echo` whose actions have any bounds; what is shown is the share of the range that is asked for.

    It takes no action that is not in its space, of its type and between its bounds.
    """

    def __init__(self, low=0.0, high=2000.0, dtype="float32", sees="vector", **kwargs):
        super().__init__(acts="box", sees=sees, **kwargs)
        self.action_space = bounded(low, high, dtype)

    @property
    def asked(self):
        low, high = (end.astype(np.float64) for end in (self.action_space.low, self.action_space.high))
        return (low + (high - low) * (self.wanted.astype(np.float64) + 1) / 2).astype(self.action_space.dtype)

    def step(self, action):
        space = self.action_space
        if not (isinstance(action, np.ndarray) and action.dtype == space.dtype and space.contains(action)):
            raise ValueError(f"{action!r} is no action")
        low, high = (end.astype(np.float64) for end in (space.low, space.high))
        return super().step((2 * (action - low) / (high - low) - 1).astype(np.float32))


def show(env):
    """The expert, in the environment's own units."""
    return lambda observation: env.unwrapped.asked


def show_little(env):
    """It hardly moves."""
    return lambda observation: env.unwrapped.asked * np.float32(1e-4)


class Arms(BatchedEnv):
    """Copies of a task that want the same share of the range at every step, behind one call."""

    def __init__(self, num_envs, low=0.0, high=2000.0):
        self.single_observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.single_action_space = bounded(low, high)
        super().__init__(num_envs)
        self.times = np.zeros(num_envs, np.int64)

    def start(self, copies, seeds):
        self.times[copies] = 0

    def advance(self, actions):
        space = self.single_action_space
        if actions.dtype != space.dtype or not all(map(space.contains, actions)):
            raise ValueError(f"{actions} are no actions")
        self.times += 1
        over = self.times >= 4
        middle = (space.low + space.high) / 2
        near = (np.abs(actions - middle) < 0.25 * (space.high - space.low)).all(axis=1)
        return near.astype(np.float64), np.zeros(self.num_envs, bool), over, {"is_success": near}

    def observe(self, copies=slice(None)):
        return np.stack([self.times[copies] / 4, np.zeros(len(self.times[copies]))], axis=1).astype(np.float32)


ACTIONS = {
    "multibinary": spaces.MultiBinary(3),
    "multidiscrete of bytes": spaces.MultiDiscrete([2, 3], dtype=np.uint8),
    "discrete": spaces.Discrete(3),
    "flat": bounded(-1.0, 1.0, "float64"),
    "square": bounded(0.0, 5.0, shape=(2, 2)),
    "square of units": bounded(-1.0, 1.0, shape=(2, 2)),
    "number": bounded(0.0, 5.0, shape=()),
    "half precision": bounded(0.0, 100.0, "float16"),
    "partly constant": bounded([0.0, 5.0], [1.0, 5.0]),
}
VIEWS = {
    "two axes of bits": spaces.MultiBinary([2, 2]),
    "bits with a shape": spaces.MultiBinary((3,)),
    "bytes": spaces.MultiDiscrete([2, 3], dtype=np.uint8),
    "image": bounded(0, 255, "uint8", (3, 40, 40)),
    "dark image": bounded(0, 100, "uint8", (3, 40, 40)),
    "dict": spaces.Dict({"bits": spaces.MultiBinary([2, 2]), "which": spaces.Discrete(3), "v": bounded(-1.0, 1.0)}),
}


class Kind(gym.Env):
    """Any spaces, by name; it wants any action, but only in its space and of its type."""

    def __init__(self, view=None, acts="discrete"):
        self.observation_space = VIEWS[view] if view else bounded(-1.0, 1.0)
        self.action_space = ACTIONS[acts]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        action, space = np.asarray(action), self.action_space
        if action.shape != space.shape or action.dtype != space.dtype or not space.contains(action):
            raise ValueError(f"{action!r} is no action")
        self.time += 1
        return self.observation_space.sample(), 0.0, False, self.time >= 4, {"is_success": True}


def show_any(env):
    env.unwrapped.action_space.seed(0)
    return lambda observation: env.unwrapped.action_space.sample()


class Grid(toys.First):
    """A grid whose size is the bound of what is seen."""

    def __init__(self, size=5, kind="box", shown=1.0):
        super().__init__()
        box = bounded(0, size, "uint8" if kind == "bytes" else "float32")
        self.kind, self.shown = kind, shown
        self.observation_space = spaces.Dict({"at": box, "n": spaces.Discrete(3)}) if kind == "dict" else box

    def _look(self):
        at = np.full(2, self.shown, self.observation_space["at"].dtype if self.kind == "dict" else None)
        return {"at": at, "n": 0} if self.kind == "dict" else at.astype(self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        return self._look(), info

    def step(self, action):
        self.time += 1
        return self._look(), float(action == 1), self.time >= 5, False, {"is_success": action == 1}


def ten_steps(env):
    return gym.wrappers.TimeLimit(env, 10)


class Lenient(Arm):
    """Takes any action that is within its bounds."""

    def step(self, action):
        assert self.action_space.contains(action)
        return toys.Echo.step(self, self.wanted)
