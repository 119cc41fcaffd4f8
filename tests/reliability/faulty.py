"""An environment that misbehaves on demand, one copy at a time and in a batch."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces

STEPS = 6
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)


class Faulty(gym.Env):
    """Goes wrong in one episode, for as long as a file is there.

    Args:
        fault: How; `None` for never.
        seed: Of the episode.
        step: At which of its steps; 0 is the reset.
        while_there: The file.
        keys: Whether observations are a dictionary.
    """

    action_space = spaces.Discrete(3)

    def __init__(self, fault=None, seed=-1, step=4, while_there="", keys=False):
        self.fault, self.when, self.file, self.keys = fault, (seed, step), while_there, keys
        self.observation_space = spaces.Dict({"place": VECTOR, "speed": VECTOR}) if keys else VECTOR

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.time, self.hits = seed, 0, 0
        seen, _, info = self._spoil(self._look(), 0.0, {})
        return seen, info

    def step(self, action):
        self.time += 1
        hit = bool(action == self.wanted)
        self.hits += hit
        done = self.time == STEPS
        info = {"is_success": self.hits >= 4} if done else {}
        seen, reward, info = self._spoil(self._look(), float(hit), info)
        if self._now() and self.fault == "four values":
            return seen, reward, done, info
        return seen, reward, done, False, info

    def _look(self):
        self.wanted = int(self.np_random.integers(3))
        vector = np.eye(3, dtype=np.float32)[self.wanted]
        return {"place": vector, "speed": np.zeros(3, np.float32)} if self.keys else vector

    def _now(self):
        return self.fault and (self.seed, self.time) == self.when and os.path.exists(self.file)

    def _spoil(self, seen, reward, info):
        if not self._now():
            return seen, reward, info
        if self.keys:
            return {**seen, "speed": spoilt(seen["speed"], self.fault)}, reward, info
        if self.fault in DEEDS:
            DEEDS[self.fault]()
        strange = {"nan reward": np.nan, "inf reward": np.inf, "huge reward": 1e30, "no reward": None}
        if self.fault == "nan success":
            info = {**info, "is_success": np.nan}
        if self.fault == "no info":
            info = None
        return spoilt(seen, self.fault), strange.get(self.fault, reward), info


def spoilt(seen, fault):
    """Return an observation as the fault has it."""
    if fault == "wrong shape":
        return seen[:2]
    if fault == "one number":
        return seen[:1]
    if fault == "wrong type":
        return seen.astype(np.float64)
    if fault == "words":
        return np.array(["left", "right", "up"])
    factor = {"nan observation": np.nan, "inf observation": np.inf, "far observation": 100.0}.get(fault, 1.0)
    return ((seen + 1) * np.float32(factor)).astype(np.float32) if factor != 1.0 else seen


def fail():
    raise RuntimeError("the motor is stuck")


def hang_in_c():
    # usleep through PyDLL keeps Python's lock, as a simulator's loop may.
    ctypes.PyDLL(None).usleep(600_000_000)


def lock_up():
    # A mutex that is locked twice: no signal ends that wait, and Python's lock is free meanwhile.
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)


DEEDS = {
    "raises": fail,
    "exits": lambda: sys.exit(3),
    "exits at once": lambda: os._exit(7),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hangs": lambda: time.sleep(600),
    "hangs in C": hang_in_c,
    "locks up": lock_up,
}


class FaultyBatch(gym.vector.VectorEnv):
    """The same in a batch: all copies in one call."""

    metadata = {"autoreset_mode": "disabled"}

    def __init__(self, num_envs=1, fault=None, seed=-1, step=4, while_there=""):
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = VECTOR, spaces.Discrete(3)
        self.copies = [Faulty(fault if fault in DEEDS else None, seed, step, while_there) for _ in range(num_envs)]
        self.fault, self.when, self.file = fault, (seed, step), while_there
        self.seen = np.zeros((num_envs, 3), np.float32)
        self.render_mode = None

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for copy in np.flatnonzero(mask):
            self.seen[copy], _ = self.copies[copy].reset(seed=seed[copy])
        return self.seen.copy(), {}

    def step(self, actions):
        rewards, done, solved = np.zeros(self.num_envs), np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for copy, (env, action) in enumerate(zip(self.copies, actions, strict=True)):
            self.seen[copy], rewards[copy], done[copy], _, info = env.step(action)
            solved[copy] = info.get("is_success", False)
            if (env.seed, env.time) == self.when and os.path.exists(self.file):
                self.seen[copy] = spoilt(self.seen[copy], self.fault)
                rewards[copy] = {"nan reward": np.nan, "huge reward": 1e30}.get(self.fault, rewards[copy])
        return self.seen.copy(), rewards, done, np.zeros(self.num_envs, bool), {"is_success": solved}

    def close(self):
        pass


gym.register("faulty/Batch-v0", entry_point="faulty:Faulty", vector_entry_point="faulty:FaultyBatch")


def tell(env):
    return lambda observation: env.unwrapped.wanted


def stalls_later(env):
    """An expert that falls silent at its third action."""
    left = [3]

    def act(observation):
        left[0] -= 1
        while not left[0]:
            time.sleep(1)
        return env.unwrapped.wanted

    return act


def halves(env):
    return lambda observation: env.unwrapped.wanted + 0.5


def marker(directory):
    """Make the file that the faults depend on."""
    file = Path(directory) / "cause"
    file.touch()
    return file
