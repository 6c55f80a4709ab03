"""Models: the ladder of sizes, the packed forward pass, reward models, generation."""
