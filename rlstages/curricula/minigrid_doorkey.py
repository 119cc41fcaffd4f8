"""Copy a planner that fetches a key in a small room of MiniGrid, then learn it in rooms ten times as large."""

from __future__ import annotations

from rlstages import PPO, Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold


def curriculum(max_steps: int = 300_000) -> Curriculum:
    """Return the ladder from DoorKey-5x5 over 8x8 to 16x16.

    Args:
        max_steps: Step limit of each fine-tuning stage.
    """

    def doorkey(size: int) -> Environment:
        place = "rlstages_envs.minigrid:doorkey"
        return Environment(place, success="rlstages_envs.minigrid:reached_goal", size=size)

    small, medium, large = doorkey(5), doorkey(8), doorkey(16)
    return Curriculum(
        "minigrid-doorkey",
        agent=Agent(PPO(ent_coef=0.01), policy="MlpPolicy", n_envs=16),
        stages=[
            BehaviorCloning("clone", small, expert=Expert("rlstages_envs:plan_minigrid", episodes=100)),
            FineTuning("5x5", small, until=SuccessThreshold(0.9), max_steps=max_steps),
            FineTuning("8x8", medium, until=SuccessThreshold(0.9), max_steps=max_steps),
            FineTuning("16x16", large, until=SuccessThreshold(0.9), max_steps=max_steps),
        ],
    )
