"""The files of the labeling page."""
