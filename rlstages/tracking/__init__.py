"""Readers of a run's events: console, Weights & Biases, TensorBoard."""
