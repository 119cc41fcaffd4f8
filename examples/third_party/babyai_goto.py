"""Copy MiniGrid's BabyAIBot, which plans anew for each mission, in a level of one room with distractors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from minigrid.core.constants import COLOR_NAMES
from minigrid.utils.baby_ai_bot import BabyAIBot

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold

OBJECTS = ["ball", "box", "key"]
TYPES, COLORS, STATES = 11, 6, 3


class Mission(gym.ObservationWrapper[np.ndarray, int, dict[str, Any]]):
    """Shows the view one-hot, and the colour and kind of the object that the mission names.

    Observations: `[7 * 7 * 20 + 9] float32`, zeros and ones.
    """

    def __init__(self, env: gym.Env[dict[str, Any], int]) -> None:
        super().__init__(env)
        view = 7 * 7 * (TYPES + COLORS + STATES)
        self.observation_space = gym.spaces.Box(0.0, 1.0, (view + len(COLOR_NAMES) + len(OBJECTS),), np.float32)

    def observation(self, observation: dict[str, Any]) -> np.ndarray:
        """Return the observation as one vector."""
        image = observation["image"]
        planes = [np.eye(size)[image[..., i]] for i, size in enumerate((TYPES, COLORS, STATES))]
        color, kind = observation["mission"].split()[-2:]
        words = [color == name for name in COLOR_NAMES] + [kind == name for name in OBJECTS]
        return np.concatenate([*(plane.ravel() for plane in planes), words]).astype(np.float32)


def follow_bot(env: gym.Env[Any, Any]) -> Callable[[Any], int]:
    """Return the bot of the episode that was just reset; it reads the mission when it is made."""
    bot = BabyAIBot(env)
    return lambda observation: int(bot.replan())


def went_there(info: dict[str, Any], episode_return: float, length: int) -> bool:
    """Return whether the mission was completed: only then is a reward given."""
    return episode_return > 0.0


def curriculum(level: str = "BabyAI-GoToLocal-v0", episodes: int = 1000, max_steps: int = 30_000) -> Curriculum:
    """Return a clone of the bot, then fine-tuning in the same level.

    Args:
        level: A BabyAI level whose mission ends with a colour and a kind of object.
        episodes: That the bot shows.
        max_steps: Of the fine-tuning stage.
    """
    room = Environment(f"minigrid:{level}", wrappers=[Mission], success=went_there)
    return Curriculum(
        "babyai-goto",
        agent=Agent("PPO", policy="MlpPolicy", n_envs=8, network=[128, 128], ent_coef=0.01),
        stages=[
            BehaviorCloning("clone", room, expert=Expert(follow_bot, episodes=episodes), until=SuccessThreshold(0.5)),
            FineTuning("go", room, until=SuccessThreshold(0.5), max_steps=max_steps),
        ],
    )
