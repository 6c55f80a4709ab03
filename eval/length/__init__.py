"""Preference and ratings at equal length."""
