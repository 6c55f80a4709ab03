"""The shared comparison pool."""
