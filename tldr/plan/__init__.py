"""What a study will take before it runs: parameters, FLOPs, memory, hours, price; and what it took."""
