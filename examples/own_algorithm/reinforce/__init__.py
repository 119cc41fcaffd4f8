"""An algorithm for rlstages: REINFORCE with a learned baseline."""

from reinforce.spec import REINFORCE

__all__ = ["REINFORCE"]
