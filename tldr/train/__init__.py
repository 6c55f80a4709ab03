"""The one training loop: seeds, batches, updates, logs, resumable state."""
