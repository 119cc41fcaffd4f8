"""More than one run: comparisons, sweeps, and how their runs are started."""
