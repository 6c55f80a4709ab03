"""Ratings of single summaries on axes of 1-7."""
