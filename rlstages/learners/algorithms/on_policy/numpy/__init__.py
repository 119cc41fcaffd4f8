"""The engine for small layers on the CPU: forward and backward passes in NumPy."""
