"""Copy gymnasium's own lander in calm air, then learn to land in stronger and stronger wind."""

from __future__ import annotations

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, RewardThreshold


def curriculum(wind: float = 15.0, landing: float = 200.0, max_steps: int = 600_000) -> Curriculum:
    """Return the ladder from calm air to this wind, at full thrust control.

    Args:
        wind: Power of the last stage's wind, in gymnasium's units (up to 20).
        landing: Return that the last stage asks for.
        max_steps: Of each fine-tuning stage.
    """
    calm = Environment("rlstages_envs.lunarlander:lunarlander")
    breeze = Environment("rlstages_envs.lunarlander:lunarlander", wind_power=wind * 2 / 3)
    storm = Environment("rlstages_envs.lunarlander:lunarlander", wind_power=wind)
    return Curriculum(
        "lunarlander",
        agent=Agent(
            "PPO",
            policy="MlpPolicy",
            n_envs=16,
            n_steps=256,
            gamma=0.999,
            gae_lambda=0.98,
            normalize_observations=True,
            normalize_rewards=True,
        ),
        stages=[
            BehaviorCloning("clone", calm, expert=Expert("rlstages_envs:land", episodes=20), max_epochs=40),
            FineTuning("breeze", breeze, until=RewardThreshold(220.0), max_steps=max_steps),
            FineTuning("storm", storm, until=RewardThreshold(landing), max_steps=max_steps),
        ],
    )
