"""Evaluation: scores, the protocol cards that say how they were computed, and ranking."""
