"""Best of N: the gain from choosing the best of N samples."""
