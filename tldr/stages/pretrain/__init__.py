"""Pretraining of the toy ladder."""
