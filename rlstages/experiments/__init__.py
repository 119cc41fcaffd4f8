"""Comparisons and sweeps, and the jobs of their runs."""
