"""The training loop of all stages: seeds, batches, updates, logs, resumable state."""
