"""The Weights & Biases tracker, a separate process that follows the event log and cannot harm the training."""
