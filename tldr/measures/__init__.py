"""Measures without torch that training and evaluation share."""
