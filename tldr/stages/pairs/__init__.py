"""Pairs scored by every model."""
