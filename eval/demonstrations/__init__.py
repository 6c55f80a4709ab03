"""Supervised policies on fewer demonstrations, beside what human feedback reaches."""
