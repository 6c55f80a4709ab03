"""The mathematics of learning from human feedback, as pure functions on tensors.

Conventions, everywhere: a response is the last axis, (..., T), right-padded; `mask` is bool, True
on real tokens (EOS included), and a wholly False row is an absent response. Whatever stands at a
padded position, NaN included, reaches no result and no gradient, and padded entries of every
output are exactly 0. Arithmetic is float32 at least, whatever the input. Log-probabilities,
entropies and KL are in nats.

masking: means and whitening over real entries. losses: SFT and reward-model losses.
rewards: score and KL penalty as per-token rewards. advantages: GAE, REINFORCE, RLOO.
ppo: clipped losses and their diagnostics. kl: estimators, the adaptive coefficient.
schedule: learning-rate multiplier.
"""
