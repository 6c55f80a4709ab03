"""Probes: pairs made by rule that test a reward model."""
