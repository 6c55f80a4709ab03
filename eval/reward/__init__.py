"""Reward models: accuracy, calibration and length bias on labelled pairs."""
