"""The learner, and how its policy is cloned and fine-tuned."""
