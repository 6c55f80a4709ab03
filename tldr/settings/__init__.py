"""Settings that several parts share: strict types, values by model size, training, models."""
