"""The torch engine, for every policy and device, which equals stable-baselines3 bit for bit."""
