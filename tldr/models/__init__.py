"""Models: the ladder, the one packed forward, reward models, generation."""
