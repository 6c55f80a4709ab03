"""Agreement: how often any two judges of the same pairs agree."""
