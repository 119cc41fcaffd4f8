"""Demonstrations: episodes in memory, in files, and in run directories."""
