"""Training: Adam, checkpoints, exact resume."""
