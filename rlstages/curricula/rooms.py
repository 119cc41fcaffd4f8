"""Copy a planner in two rooms, then learn to find the way through six larger ones."""

from __future__ import annotations

from rlstages import PPO, Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold


def curriculum(max_steps: int = 300_000) -> Curriculum:
    """Return the ladder from two rooms of 5 by 5 cells to six of 7 by 7.

    Args:
        max_steps: Step limit of each fine-tuning stage.
    """
    two_rooms = Environment("rlstages_envs:rlstages/Rooms-v0", rooms=2, size=5)
    four_rooms = Environment("rlstages_envs:rlstages/Rooms-v0", rooms=4, size=6)
    six_rooms = Environment("rlstages_envs:rlstages/Rooms-v0", rooms=6, size=7)
    return Curriculum(
        "rooms",
        agent=Agent(PPO(ent_coef=0.01), policy="MlpPolicy", n_envs=16),
        stages=[
            BehaviorCloning("clone", two_rooms, expert=Expert("rlstages_envs:plan_rooms", episodes=200)),
            FineTuning("two rooms", two_rooms, until=SuccessThreshold(0.9), max_steps=max_steps),
            FineTuning("four rooms", four_rooms, until=SuccessThreshold(0.9), max_steps=max_steps),
            FineTuning("six rooms", six_rooms, until=SuccessThreshold(0.9), max_steps=max_steps),
        ],
    )
