"""Copy a planner in MiniGrid's two small rooms, then learn its way up to MultiRoom-N6."""

from __future__ import annotations

from typing import Any

from rlstages import PPO, Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold


def curriculum(max_steps: int = 300_000) -> Curriculum:
    """Return the ladder N2-S4, N4-S5, and rooms of up to 10 cells: two to three, three to four, six (N6).

    A wide margin lets a step of the ladder be confirmed in few episodes; the last gate asks for more instead.

    Args:
        max_steps: Step limit of each fine-tuning stage.
    """

    def multiroom(**layout: Any) -> Environment:
        return Environment("rlstages_envs.minigrid:multiroom", success="rlstages_envs.minigrid:reached_goal", **layout)

    n2_s4 = multiroom(min_rooms=2, max_rooms=2, max_room_size=4)
    n4_s5 = multiroom(min_rooms=4, max_rooms=4, max_room_size=5)
    two_to_three = multiroom(min_rooms=2, max_rooms=3)
    three_to_four = multiroom(min_rooms=3, max_rooms=4)
    n6 = multiroom(min_rooms=6, max_rooms=6)
    solved, mastered = SuccessThreshold(0.8, margin=0.1), SuccessThreshold(0.85, margin=0.1)
    return Curriculum(
        "minigrid-multiroom",
        agent=Agent(PPO(ent_coef=0.01), policy="MlpPolicy", n_envs=16),
        stages=[
            BehaviorCloning("clone", n2_s4, expert=Expert("rlstages_envs:plan_minigrid", episodes=100)),
            FineTuning("N2-S4", n2_s4, until=solved, max_steps=max_steps),
            FineTuning("N4-S5", n4_s5, until=solved, max_steps=max_steps),
            FineTuning("two to three rooms", two_to_three, until=solved, max_steps=max_steps),
            FineTuning("three to four rooms", three_to_four, until=solved, max_steps=max_steps),
            FineTuning("N6", n6, until=mastered, max_steps=max_steps, settings={"ent_coef": 0.003}),
        ],
    )
