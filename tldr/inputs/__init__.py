"""A study's inputs: reading and checking posts and labels, and the guard against leakage."""
