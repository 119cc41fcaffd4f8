"""From an `Environment` to its copies: made, seeded, stepped, watched, and guarded against their faults."""
