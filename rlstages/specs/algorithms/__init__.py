"""Algorithms as frozen data: the settings of each, and what it supports."""
