"""The data stage: post files and a tokenizer in one folder."""
