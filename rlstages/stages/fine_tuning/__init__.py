"""The stage that trains with reinforcement learning, and what watches over it."""
