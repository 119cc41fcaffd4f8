"""Runs that the tests of this folder damage."""

from runs import run, stopped  # noqa: F401
