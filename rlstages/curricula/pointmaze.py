"""Copy a path follower in an open square, then learn to reach goal after goal in mazes."""

from __future__ import annotations

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold


def curriculum(max_steps: int = 300_000) -> Curriculum:
    """Return the ladder from an open square of 3 by 3 cells to three goals in a maze of 12 by 12.

    A path follower hardly ever leaves its path, so its clone would explore too little to find ways around walls: the
    first fine-tuning stage starts with more noise than the clone has.

    Args:
        max_steps: Step limit of each fine-tuning stage.
    """
    square = Environment("rlstages_envs:rlstages/PointMaze-v0", size=3, walls=0.0)
    maze = Environment("rlstages_envs:rlstages/PointMaze-v0", size=5)
    large_maze = Environment("rlstages_envs:rlstages/PointMaze-v0", size=12, goals=3, max_steps=450)
    follower = Expert("rlstages_envs:follow_path", episodes=100)
    return Curriculum(
        "pointmaze",
        agent=Agent("PPO", policy="MlpPolicy", n_envs=16),
        stages=[
            BehaviorCloning("clone", square, expert=follower, max_epochs=20, min_log_std=-0.5),
            FineTuning("square", square, until=SuccessThreshold(0.9), max_steps=max_steps, exploration=0.0),
            FineTuning("maze", maze, until=SuccessThreshold(0.85), max_steps=max_steps),
            FineTuning("large maze", large_maze, until=SuccessThreshold(0.9), max_steps=max_steps),
        ],
    )
