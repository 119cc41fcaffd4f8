"""A kind of stage for rlstages: a policy learns to be undecided before it learns a task."""

from undecided.spec import Undecided

__all__ = ["Undecided"]
