"""What computes a fine-tuning stage's actions and gradients: torch, or NumPy for small networks on the CPU."""
