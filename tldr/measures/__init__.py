"""Pure functions on numbers and texts that both `tldr` and `eval` call; no torch, no pandas."""
