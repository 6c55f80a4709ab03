"""Samples of a policy."""
