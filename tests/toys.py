"""Tiny environments, experts, wrappers and rules of success, found by workers as `toys:name`."""

import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces

HUES = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(2),
}


class Echo(gym.Env):
    """Shows what to do at every step; the return of an episode is the number of steps at which it was done.

    Args:
        sees: `"vector"`, `"image"` (36 x 36, colours last), `"dict"` or `"discrete"`.
        acts: A key of `ACTIONS`.
        steps: Length of an episode.
        fault: What goes wrong: `"reward"`, `"observation"`, `"final observation"`, `"error"` or `None`.
        fault_seed: In the episode with this seed; `None` means every one.
        fault_step: At this step of it.
    """

    def __init__(self, sees="vector", acts="discrete", steps=8, fault=None, fault_seed=None, fault_step=3, scale=1.0):
        self.action_space = ACTIONS[acts]
        self.sees, self.steps, self.scale = sees, steps, scale
        self.fault = fault, fault_seed, fault_step
        width = {"discrete": 3, "box": 2, "multidiscrete": 5, "multibinary": 2}[acts]
        vector = spaces.Box(-scale, scale, (width,), np.float32)
        image = spaces.Box(0, 255, (36, 36, 3), np.uint8)
        self.observation_space = {
            "vector": vector,
            "image": image,
            "dict": spaces.Dict({"goal": vector, "clock": spaces.Box(0.0, 1.0, (1,), np.float32)}),
            "discrete": spaces.Discrete(3),
        }[sees]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.time, self.hits = seed, 0, 0
        return self._show(), {"seed": seed}

    def step(self, action):
        self.time += 1
        fault, seed, step = self.fault
        faulty = self.time == step and seed in (None, self.seed)
        if faulty and fault == "error":
            raise RuntimeError("the motor is stuck")
        if isinstance(self.action_space, spaces.Box):
            hit = bool(np.abs(self.wanted - action).max() < 0.5)
        else:
            hit = bool(np.array_equal(self.wanted, action))
        self.hits += hit
        seen = self._show()
        if faulty and fault in ("observation", "final observation"):
            seen = {**seen, "goal": seen["goal"] * np.nan} if self.sees == "dict" else seen * np.float32(np.nan)
        reward = np.inf if faulty and fault == "reward" else float(hit)
        ended = self.time >= self.steps or (faulty and fault == "final observation")
        info = {"is_success": self.hits >= 0.75 * self.steps, "hits": self.hits} if ended else {}
        return seen, reward, False, ended, info

    def _show(self):
        draw = self.np_random
        if isinstance(self.action_space, spaces.Discrete):
            self.wanted = int(draw.integers(3))
            vector = np.eye(3, dtype=np.float32)[self.wanted]
        elif isinstance(self.action_space, spaces.Box):
            vector = self.wanted = draw.uniform(-0.9, 0.9, 2).astype(np.float32)
        elif isinstance(self.action_space, spaces.MultiDiscrete):
            self.wanted = np.array([draw.integers(3), draw.integers(2)])
            vector = np.concatenate([np.eye(3)[self.wanted[0]], np.eye(2)[self.wanted[1]]]).astype(np.float32)
        else:
            self.wanted = draw.integers(0, 2, 2).astype(np.int8)
            vector = self.wanted.astype(np.float32)
        if self.sees == "image":
            return np.ascontiguousarray(np.broadcast_to(HUES[self.wanted], (36, 36, 3)))
        if self.sees == "discrete":
            return self.wanted
        if self.sees == "dict":
            return {"goal": vector * self.scale, "clock": np.array([self.time / self.steps], np.float32)}
        return vector * self.scale


def tell(env):
    """The expert: it does what is shown, as every observation says."""
    echo = env.unwrapped

    def act(observation):
        return echo.wanted

    return act


def tell_short(env):
    if env.unwrapped.steps != 4:
        raise ValueError("it knows only 4 steps")
    return tell(env)


def tell_wrongly(env):
    return lambda observation: np.array([7.0, 7.0, 7.0])


def fail_to_tell(env):
    raise RuntimeError("the map is missing")


def fail_later(env):
    left = [5]

    def act(observation):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("out of fuel")
        return env.unwrapped.wanted

    return act


def wrong_later(env):
    left = [5]

    def act(observation):
        left[0] -= 1
        return env.unwrapped.wanted if left[0] >= 0 else "left"

    return act


def no_function(env):
    return 3


class DoubleReward(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * float(reward)


def refuse_to_wrap(env):
    raise RuntimeError("this wrapper does not fit")


def hit_often(info, episode_return, length):
    return info["hits"] >= 4


class First(gym.Env):
    """The first episode of each copy is short and solved; all later ones are longer and not solved."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, long=6):
        self.long, self.number = long, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.time = self.number + 1, 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.time += 1
        first = self.number == 0
        ended = self.time >= (1 if first else self.long)
        return np.zeros(3, np.float32), float(first), ended, False, {"is_success": first}


class Never(First):
    """Every episode ends at once and is not solved."""

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, True, False, {"is_success": False}


class Always(First):
    """Every episode ends soon and is solved."""

    def step(self, action):
        self.time += 1
        return np.zeros(3, np.float32), 1.0, self.time >= 2, False, {"is_success": True}


class Spoilt(First):
    """Its rewards are not finite."""

    def step(self, action):
        return np.zeros(3, np.float32), np.nan, True, False, {"is_success": False}


class Picky(First):
    """Takes no action that is a plain number of Python's, which its space never samples."""

    def step(self, action):
        if type(action) is int:
            raise ValueError(f"not {action}")
        return np.zeros(3, np.float32), 0.0, True, False, {"is_success": False}


class Silent(First):
    """Never says whether an episode is solved."""

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, True, False, {}


class Endless(First):
    """Its episodes do not end."""

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, False, {}


def limit(env):
    return gym.wrappers.TimeLimit(env, 5_000)


class OtherSpaces(Echo):
    """Any spaces, by keyword; it is only looked at, or stepped at random."""

    def __init__(self, observation=None, action=None):
        super().__init__()
        self.observation_space = observation or self.observation_space
        self.action_space = action or self.action_space

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, True, False, {"is_success": False}


def unbounded():
    return OtherSpaces(action=spaces.Box(-np.inf, np.inf, (2,), np.float32))


def paired():
    return OtherSpaces(observation=spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]))


def worded():
    return OtherSpaces(observation=spaces.Dict({"view": spaces.Box(0, 1, (3,), np.float32), "task": spaces.Text(9)}))


def nested():
    inner = spaces.Dict({"a": spaces.Box(0, 1, (3,), np.float32)})
    return OtherSpaces(observation=spaces.Dict({"inner": inner}))


def shifted():
    return OtherSpaces(action=spaces.Discrete(3, start=1))


def shifted_view():
    return OtherSpaces(observation=spaces.Discrete(3, start=1))


def fails_when_made():
    raise RuntimeError("no licence")


def fails_in_step():
    return Echo(fault="error", fault_step=2)


def not_an_environment():
    return 3


WORD = "a word"


def tell_zero(env):
    """An expert that does the same whatever is shown."""
    return lambda observation: 0


class Strict(Echo):
    """Takes no action but its own."""

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is no action")
        return super().step(action)


class Slow(Echo):
    """Takes its time for a step."""

    def step(self, action):
        time.sleep(2e-3)
        return super().step(action)


class Uneven(First):
    """Its episodes are as long as their seed says."""

    def __init__(self, long=6, acts="discrete"):
        super().__init__(long)
        self.action_space = ACTIONS[acts]

    def length_of(self, seed):
        return 1 + int(np.random.default_rng(seed).integers(30))

    def reset(self, *, seed=None, options=None):
        self.length = self.length_of(seed)
        return super().reset(seed=seed)

    def step(self, action):
        self.time += 1
        return np.zeros(3, np.float32), 1.0, self.time >= self.length, False, {"is_success": False}


def tell_numpy(env):
    return lambda observation: np.int32(env.unwrapped.wanted)


def tell_float(env):
    return lambda observation: 1.0


def two_actions():
    return OtherSpaces(action=spaces.Discrete(2))


class Drifting(First):
    """Its episodes get longer from one to the next, whatever their seeds."""

    def step(self, action):
        self.time += 1
        ended = self.time >= self.number + 1
        return np.full(3, self.time / 9, np.float32), 0.0, ended, False, {"is_success": False}


class Drawing(First):
    """Draws from NumPy's global generator when it is made."""

    def __init__(self):
        super().__init__()
        self.luck = np.random.random()


class Unseeded(First):
    """Shows numbers from NumPy's global generator."""

    def step(self, action):
        self.time += 1
        return np.random.random(3).astype(np.float32), 0.0, self.time >= 9, False, {"is_success": False}


def side_by_side(num_envs, mode="NextStep"):
    """CartPoles behind gymnasium's own vector environment, which resets them as `mode` says."""
    return gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * num_envs, autoreset_mode=mode)


def takes_num_envs(num_envs):
    return "no batch"


class Contrary(Echo):
    """Shows something else than what to do: who learns it forgets `Echo`, which looks the same."""

    def _show(self):
        super()._show()
        return np.eye(3, dtype=np.float32)[(self.wanted + 1) % 3]


class Corridor(gym.Env):
    """Three steps to a goal that a reset chooses: to the left or to the right."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal, self.time = 0, int(self.np_random.choice([-3, 3])), 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.place += 2 * int(action) - 1
        self.time += 1
        there = self.place == self.goal
        return np.full(1, self.place / 10, np.float32), float(there), there, self.time >= 5, {"is_success": there}


def plan_ahead(env):
    """An expert that looks at the episode once, and then does what it has planned."""
    plan = [int(env.unwrapped.goal > 0)] * 3
    return lambda observation: plan.pop()


class Cars(gym.Env):
    """Throttle and steering have bounds of their own."""

    observation_space = spaces.Box(0.0, 10.0, (1,), np.float32)
    action_space = spaces.Box(np.array([-1.0, -0.4], np.float32), np.array([3.0, 0.4], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.time, np.float32), 1.0, False, self.time >= 6, {"is_success": True}


def steer_hard(env):
    return lambda observation: np.array([2.0, 0.2 * observation[0]], np.float32)


def steer_to_nan(env):
    return lambda observation: np.array([2.0, 0.1 if observation[0] < 3 else np.nan], np.float32)


class Walk(gym.Env):
    """A point that is moved along a line from where its seed puts it, for 20 steps; others vary the start."""

    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.place = 0, self.begin(seed)
        return self._look(), {}

    def begin(self, seed):
        return self.np_random.uniform(-1, 1)

    def step(self, action):
        self.time += 1
        self.place += 0.1 * (2 * int(action) - 1)
        return self._look(), self.place, False, self.time >= 20, {"is_success": True}

    def _look(self):
        return np.array([self.place, self.time / 20], np.float32)


class Windy(Walk):
    """Shows a wind besides, which blows in some variants only."""

    observation_space = spaces.Box(-10.0, 10.0, (3,), np.float32)

    def __init__(self, wind=0.0):
        self.wind = wind

    def _look(self):
        return np.array([self.place, self.time / 20, self.wind * self.np_random.normal()], np.float32)


class Chance(Walk):
    """Its seed decides nothing."""

    def begin(self, seed):
        return np.random.default_rng().uniform(-1, 1)


class Lucky(Walk):
    """Draws from NumPy's global generator."""

    def begin(self, seed):
        return np.random.uniform(-1, 1)


class SeededOnce(Walk):
    """Its first seed decides all its episodes."""

    draws = None

    def begin(self, seed):
        self.draws = self.draws or np.random.default_rng(seed)
        return self.draws.uniform(-1, 1)


class Shared(Walk):
    """All copies of a process move the same point, as those of a simulator that a module holds."""

    point = {"place": 0.0}

    @property
    def place(self):
        return self.point["place"]

    @place.setter
    def place(self, value):
        self.point["place"] = value


class ChanceShared(Shared):
    """Likewise, from where no seed decides."""

    begin = Chance.begin


class LuckyShared(Shared):
    """Likewise, from where NumPy's global generator puts it."""

    begin = Lucky.begin


def any_move(env):
    return lambda seen: 1


def standardized(fixed=False):
    """A wrapper of gymnasium's within another one, as a maker of environments has it."""
    env = gym.wrappers.NormalizeObservation(Walk())
    if fixed:
        env.update_running_mean = False
    return gym.wrappers.TimeLimit(env, 15)


class Moments:
    """Mean and variance of what was seen."""

    def __init__(self):
        self.mean, self.var, self.count = 0.0, 1.0, 1e-4

    def update(self, value):
        self.count += 1
        self.var += ((value - self.mean) ** 2 - self.var) / self.count
        self.mean += (value - self.mean) / self.count


class Scaled(gym.RewardWrapper):
    """Divides rewards by what it has seen of them, as many programs do; without `moving`, by what it was given."""

    def __init__(self, env, moving=True):
        super().__init__(env)
        self.ret_rms, self.moving = Moments(), moving

    def reward(self, reward):
        if self.moving:
            self.ret_rms.update(reward)
        return reward / np.sqrt(self.ret_rms.var + 1e-8)


def scaled_batch(num_envs):
    """A batch with statistics in a copy."""
    return gym.vector.SyncVectorEnv([lambda: Scaled(Walk())] * num_envs)


def scaled_by_a_constant():
    return Scaled(Walk(), moving=False)


class Centred(gym.ObservationWrapper):
    """Subtracts a moving mean that goes by no usual name."""

    def __init__(self, env):
        super().__init__(env)
        self.seen_mean, self.seen_std = np.zeros(2), np.ones(2)

    def observation(self, observation):
        self.seen_mean += 0.01 * (observation - self.seen_mean)
        return (observation - self.seen_mean).astype(np.float32)


class Counting(gym.Wrapper):
    """Keeps statistics for a person, and changes nothing."""

    def __init__(self, env):
        super().__init__(env)
        self.lengths = Moments()

    def step(self, action):
        self.lengths.update(1.0)
        return self.env.step(action)
