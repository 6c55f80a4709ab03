"""Texts and tokens: query formats, tokenizers, record files, the filter of the raw dump."""
