"""How fast the stages train on the device at hand, with random weights and made-up texts."""
