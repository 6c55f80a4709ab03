"""Asking a judge which of two summaries of a post is better, in both orders.

* `tldr.judge.pairs`: what is judged, and the interface of every judge;
* `tldr.judge.llm`: any OpenAI-compatible endpoint, with `prompt`, `endpoint`, `cache` and `budget`;
* `tldr.judge.scored`: any scorer of single summaries (a reward model, an embedding) as a judge.

What verdicts say is measured in `eval.judge`.
"""
