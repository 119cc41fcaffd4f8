"""Live environments: making, seeding, stepping and monitoring them, and handling their faults."""
