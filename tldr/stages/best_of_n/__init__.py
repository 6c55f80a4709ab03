"""Best of N."""
