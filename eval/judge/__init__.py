"""Judges: who prefers which of two summaries of a post, asked in both orders.

* `eval.judge.pairs`: what is judged, and the interface of every judge;
* `eval.judge.llm`: any OpenAI-compatible endpoint, with `prompt`, `endpoint`, `cache` and `budget`;
* `eval.judge.scored`: any scorer of single summaries (a reward model, an embedding) as a judge;
* `eval.judge.measure`: results from judgements of any judge;
* `eval.judge.verdicts`: verdicts of people and judges as scores of a study's samples;
* `eval.judge.calibration`: a judge beside people, and its share corrected for its bias.
"""
