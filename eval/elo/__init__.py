"""Elo ratings of policies from pairs."""
