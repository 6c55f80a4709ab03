"""The runs of a study that its numbers come from."""
