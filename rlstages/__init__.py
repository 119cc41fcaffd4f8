"""Staged reinforcement learning."""
