"""A comparison small enough to be run in a test."""

from building import cloning, curriculum, echo, tuning

from rlstages import SuccessThreshold
from rlstages.experiments.compare.arms import make_arms
from rlstages.experiments.compare.directory import claim_comparison
from rlstages.experiments.compare.plan import Plan

SHORT, LONG = echo(steps=4), echo(steps=8)
SOON = SuccessThreshold(0.5, window=8, max_episodes=120)


def small_plan(names=("staged", "scratch", "clone-only"), seeds=(0, 1), steps=None, **settings):
    """A clone that knows little, a stage with short episodes and one with long ones."""
    until = settings.pop("until", SOON)
    stages = [
        cloning("clone", SHORT, episodes=settings.pop("shown", 20), max_epochs=1),
        tuning("short", SHORT, until=until, max_steps=settings.pop("max_steps", 20_000)),
        tuning("long", LONG, until=until, max_steps=20_000),
    ]
    whole = curriculum(*stages, name="small", held_out=[settings.pop("held_out", echo(steps=12))], **settings)
    return Plan(whole, make_arms(whole, names), tuple(seeds), steps, episodes=16)


def placed(directory, **settings):
    plan = small_plan(**settings)
    claim_comparison(directory, plan)
    return plan


CURRICULUM = """
from rlstages import *


def curriculum(max_steps: int = 20_000, episodes: int = 20) -> Curriculum:
    until = SuccessThreshold(0.5, window=8, max_episodes=120)
    short, long = Environment("toys:Echo", steps=4), Environment("toys:Echo", steps=8)
    expert = Expert("toys:tell", episodes=episodes)
    more = dict(until=until, critic_fit_steps=128, evaluation_episodes=4)
    return Curriculum(
        "small",
        agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=4, network=(16,), learning_rate=1e-2),
        stages=[
            BehaviorCloning("clone", short, expert=expert, max_epochs=1, evaluation_episodes=4),
            FineTuning("short", short, max_steps=max_steps, **more),
            FineTuning("long", long, max_steps=max_steps, **more),
        ],
    )
"""
