"""How often a policy's summary is preferred to the reference."""
