"""Balance a pole: undecided at first, then trained."""

from undecided import Undecided

from rlstages import Agent, Curriculum, Environment, FineTuning, RewardThreshold


def curriculum(steps: int = 20_000, epochs: int = 20) -> Curriculum:
    """Return the curriculum."""
    pole = Environment("CartPole-v1")
    return Curriculum(
        "undecided-pole",
        agent=Agent("PPO", n_envs=4, n_steps=64, batch_size=64),
        stages=[
            Undecided("undecided", pole, max_epochs=epochs),
            FineTuning("balance", pole, until=RewardThreshold(60.0), max_steps=steps),
        ],
    )
