"""Ratings by simulated labelers."""
