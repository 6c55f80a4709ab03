"""People label: items to ask about, a server that asks, and files of the answers.

A folder holds ``items.jsonl`` (what is asked), ``label.yaml`` (how) and ``labels.sqlite`` (the labelers and
their answers). `desk` assigns items and takes answers; `server` is its page; `export` writes the project's
records.
"""
