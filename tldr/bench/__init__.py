"""Measure how fast the stages train on this device, with random weights and synthetic texts."""
