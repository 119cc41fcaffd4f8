"""Fine-tuning stages, which train with reinforcement learning, and their gates and guards."""
