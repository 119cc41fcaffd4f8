"""The kinds of stages, as frozen data."""
