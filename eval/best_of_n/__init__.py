"""Best of N: what choosing the best of N samples gains."""
