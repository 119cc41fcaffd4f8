"""Weights & Biases: a process of its own follows the event log, so that it can never hurt a training."""
