"""What carries out a stage, step by step."""
