"""On-policy algorithms: PPO and A2C."""
