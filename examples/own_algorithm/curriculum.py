"""Copy a controller that balances a pole, then train with REINFORCE."""

from reinforce import REINFORCE

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, RewardThreshold


def curriculum(steps: int = 20_000) -> Curriculum:
    """Return the curriculum."""
    pole = Environment("CartPole-v1")
    return Curriculum(
        "reinforce-pole",
        agent=Agent(REINFORCE(n_steps=64), n_envs=4),
        stages=[
            BehaviorCloning("clone", pole, expert=Expert("rlstages_envs.cartpole:balance", episodes=4), max_epochs=2),
            FineTuning(
                "balance",
                pole,
                until=RewardThreshold(150.0),
                max_steps=steps,
                settings={"baseline_coef": 0.25},
                anchor_kl=0.05,
                demonstration_loss=0.1,
            ),
        ],
    )
