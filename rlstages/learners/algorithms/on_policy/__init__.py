"""Algorithms that learn from what their own policy has just done: PPO and A2C."""
