"""The engine for every policy and device, equal to stable-baselines3 to the last bit."""
