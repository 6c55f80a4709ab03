"""Figures of a study, each drawn from a result table; intervals always shown.

Every function returns a matplotlib `Figure` that belongs to no window; `eval.style.save` writes it.
"""
