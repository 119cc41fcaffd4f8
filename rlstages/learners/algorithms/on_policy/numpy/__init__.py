"""The NumPy engine, for small layers on the CPU."""
