"""Measures on record files: samples, comparisons and judgements, whoever made them.

Nothing here imports torch, and of `tldr` only the records and the errors, so anybody's samples can
be measured. Per-sample measures are columns of one table (`eval.io.load_samples`); a number with
its interval and the runs it came from is a `eval.tables.Result`.
"""
