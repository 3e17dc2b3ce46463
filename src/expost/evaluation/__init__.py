"""What is scored, and how: protocol cards, scores, ranking."""
