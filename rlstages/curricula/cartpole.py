"""Copy a controller of the ordinary CartPole, then balance a short pole under strong gravity."""

from __future__ import annotations

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, RewardThreshold


def curriculum(max_steps: int = 300_000) -> Curriculum:
    """Return the ladder from the ordinary pole to a tenth of a metre at 28 metres per second squared."""
    ordinary = Environment("rlstages_envs.cartpole:cartpole")
    heavy = Environment("rlstages_envs.cartpole:cartpole", pole_length=0.1, gravity=25.0)
    heavier = Environment("rlstages_envs.cartpole:cartpole", pole_length=0.1, gravity=28.0)
    balance = Expert("rlstages_envs:balance", episodes=10)
    # An episode takes up to 500 steps: the usual 300, of a policy that nearly passes, would take half of a stage.
    good = RewardThreshold(475.0, worst=0.0, max_episodes=160)
    return Curriculum(
        "cartpole",
        agent=Agent("PPO", policy="MlpPolicy", n_envs=16),
        stages=[
            BehaviorCloning("clone", ordinary, expert=balance, max_epochs=10, entropy_weight=0.1),
            FineTuning("heavy pole", heavy, until=good, max_steps=max_steps),
            FineTuning("heavier pole", heavier, until=good, max_steps=max_steps),
        ],
    )
