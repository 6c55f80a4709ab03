"""The mathematics of learning from human feedback, as pure functions on tensors.

Conventions: a response is the last axis, (..., T), right-padded. `mask` is bool, True on real tokens
(EOS included); an all-False row is an absent response. Values at padded positions, NaN included,
affect no result and no gradient, and padded entries of every output are exactly 0. Arithmetic is in
float32 or wider, whatever the input. Log-probabilities, entropies and KL are in nats.

masking: means and whitening over real entries. losses: SFT and reward-model losses.
rewards: score and KL penalty as per-token rewards. advantages: GAE, REINFORCE, RLOO.
ppo: clipped losses and their diagnostics. kl: estimators, the adaptive coefficient.
schedule: learning-rate multiplier.
"""
