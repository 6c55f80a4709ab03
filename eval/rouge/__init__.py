"""ROUGE, also as a module of Hugging Face `evaluate` (`METRIC`)."""

from eval.rouge.measure import METRIC, rouge

__all__ = ["METRIC", "rouge"]
