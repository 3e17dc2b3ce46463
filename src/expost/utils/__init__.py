"""Files, progress, seeds, processes: nothing of the domain."""
