"""Comparisons of a curriculum with its own ablations at equal cost."""
