"""Copy gymnasium's own lander in calm air, then learn to land in strong wind and stronger gravity."""

from __future__ import annotations

from rlstages import PPO, Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, RewardThreshold


def curriculum(landing: float = 180.0, max_steps: int = 1_200_000) -> Curriculum:
    """Return the ladder from calm air to a storm, with continuous thrust.

    The breeze asks for little: a mean return is confirmed in many episodes of this task, and the storm is soon learned.

    Args:
        landing: Mean return that the last stage asks for; 200 counts as solved in calm air.
        max_steps: Step limit of each fine-tuning stage.
    """
    calm = Environment("rlstages_envs.lunarlander:lunarlander")
    breeze = Environment("rlstages_envs.lunarlander:lunarlander", wind_power=10.0)
    storm = Environment("rlstages_envs.lunarlander:lunarlander", wind_power=15.0, gravity=-11.9)
    return Curriculum(
        "lunarlander",
        agent=Agent(
            PPO(n_steps=1024, gamma=0.999, gae_lambda=0.98),
            policy="MlpPolicy",
            n_envs=16,
            normalize_rewards=True,
        ),
        stages=[
            BehaviorCloning("clone", calm, expert=Expert("rlstages_envs:land", episodes=10), min_log_std=-1.0),
            FineTuning("breeze", breeze, until=RewardThreshold(100.0, margin=20.0), max_steps=max_steps),
            FineTuning("storm", storm, until=RewardThreshold(landing, margin=20.0), max_steps=max_steps),
        ],
    )
