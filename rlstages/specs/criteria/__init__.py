"""Criteria that end stages: thresholds, and the sequential tests that decide whether they are really met."""

from rlstages.specs.criteria.criterion import AllOf, AnyOf, Criterion, Verdict, spend
from rlstages.specs.criteria.thresholds import RewardThreshold, SuccessThreshold

__all__ = ["AllOf", "AnyOf", "Criterion", "RewardThreshold", "SuccessThreshold", "Verdict", "spend"]
