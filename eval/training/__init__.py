"""PPO's training curves."""
