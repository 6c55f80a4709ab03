"""Over-optimisation: scores and preference against KL."""
