"""A curriculum against its own ablations at equal cost: what is run, what came out, and how sure that is."""
