"""Shared settings: strict types, values per model size, training, models."""
