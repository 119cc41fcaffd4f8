"""Small curricula of four stages for runs that are killed: every kind of copies, actions, algorithm and statistics."""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from rlstages import (
    Agent,
    BehaviorCloning,
    Curriculum,
    Environment,
    Expert,
    FineTuning,
    RewardThreshold,
    SuccessThreshold,
)


@dataclass(frozen=True)
class Case:
    """One way to run them: the task, how its copies are stepped, the algorithm, whether numbers are normalised."""

    task: str
    vectorize: str
    algorithm: str = "PPO"
    normalize: bool = False
    mode: str = "stochastic"
    engine: str = "torch"

    def __str__(self):
        normalized = "normalized" if self.normalize else "plain"
        return "-".join([self.task, self.vectorize, self.algorithm, normalized, self.mode, self.engine])


def still(env):
    """The expert for tasks that need none: it draws from a generator that is seeded by what it sees."""
    low, high = env.action_space.low, env.action_space.high

    def act(observation):
        draw = np.random.default_rng(int(1e6 * abs(observation[0])))
        return draw.uniform(low, high).astype(np.float32)

    return act


def lean(env):
    """The expert for a pole: it pushes to where the pole falls."""
    return lambda observation: int(observation[2] + observation[3] > 0)


def hopper(**settings):
    return gym.make("Hopper-v5" if "Hopper-v5" in gym.registry else "Hopper-v4", **settings)


TASKS = {
    "cartpole": (
        [{"pole_length": length} for length in (0.5, 0.3, 0.2)],
        "rlstages_envs.cartpole:cartpole",
        "rlstages_envs:balance",
    ),
    "vector": (
        [{"max_episode_steps": limit} for limit in (40, 60, 80)],
        "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv",
        "ladders:lean",
    ),
    "rooms": ([{"rooms": n} for n in (2, 3, 4)], "rlstages_envs:rlstages/Rooms-v0", "rlstages_envs:plan_rooms"),
    "pointmaze": ([{"size": n} for n in (3, 4, 5)], "rlstages_envs:rlstages/PointMaze-v0", "rlstages_envs:follow_path"),
    "hopper": ([{}, {"reset_noise_scale": 0.01}, {"frame_skip": 5}], "ladders:hopper", "ladders:still"),
    "lander": (
        [{"wind_power": wind} for wind in (0.0, 5.0, 15.0)],
        "rlstages_envs.lunarlander:lunarlander",
        "rlstages_envs:land",
    ),
}


NOISY = {"pointmaze", "hopper", "lander"}


def returning(case):
    """A stage that collapses, goes back twice and then goes on, and one that rehearses."""
    echo, contrary, short = (
        Environment(f"toys:{name}", vectorize=case.vectorize, **settings)
        for name, settings in (("Echo", {}), ("Contrary", {}), ("Echo", {"steps": 5}))
    )
    never, common = RewardThreshold(1e9), {"on_timeout": "advance", "critic_fit_steps": 0, "evaluation_episodes": 4}
    return Curriculum(
        "returning",
        agent=Agent(
            case.algorithm,
            network=[16],
            n_envs=4,
            n_steps=16,
            batch_size=32,
            n_epochs=8,
            learning_rate=1e-2,
            normalize_rewards=case.normalize,
            engine=case.engine,
        ),
        stages=[
            FineTuning("echo", echo, until=SuccessThreshold(0.8, window=16), max_steps=9_000, **common),
            FineTuning("contrary", contrary, until=never, max_steps=1_500, on_collapse="return", **common),
            FineTuning("short", short, until=never, max_steps=1_000, rehearse=0.5, **common),
        ],
    )


def ladder(case):
    if case.task == "returning":
        return returning(case)
    variants, name, expert = TASKS[case.task]
    places = [Environment(name, vectorize=case.vectorize, **variant) for variant in variants]
    ppo = {"batch_size": 32, "n_epochs": 2, "n_steps": 16} if case.algorithm == "PPO" else {"n_steps": 16}
    # Much noise at the hand-over, so that the guard goes back to the clone.
    noise = {"exploration": 1.0} if case.task in NOISY else {}
    # Two gates never open, and the one in between soon does.
    gates = [RewardThreshold(1e9), RewardThreshold(-1e3, margin=1e3, worst=-1e4, window=4), RewardThreshold(1e9)]
    return Curriculum(
        "ladder",
        agent=Agent(
            case.algorithm,
            network=[16],
            n_envs=4,
            normalize_observations=case.normalize,
            normalize_rewards=case.normalize,
            action_mode=case.mode,
            engine=case.engine,
            **ppo,
        ),
        stages=[
            BehaviorCloning("clone", places[0], expert=Expert(expert, episodes=4), max_epochs=4, evaluation_episodes=4),
            *(
                FineTuning(
                    f"variant {number}",
                    place,
                    until=gate,
                    max_steps=1_600,
                    on_timeout="advance",
                    critic_fit_steps=256,
                    guard_steps=256,
                    demonstration_loss=0.1,
                    demonstration_steps=1_000,
                    evaluation_episodes=8 if number == 0 else 4,
                    **(noise if number == 0 else {}),
                )
                for number, (place, gate) in enumerate(zip(places, gates, strict=True))
            ),
        ],
        held_out=[Environment(name, vectorize=case.vectorize, **variants[-1], success=1.0)],
        retention_share=1.0 if case.task == "cartpole" else 0.05,
    )
