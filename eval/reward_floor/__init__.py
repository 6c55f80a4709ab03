"""The floor under a reward model: judges that need no language model."""
