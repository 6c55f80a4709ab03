"""ROUGE of summaries with their posts' references, where a stage chooses or compares by it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from rouge_score.rouge_scorer import RougeScorer

from tldr.records import Post


def rouge_scores(posts: Sequence[Post], texts: Sequence[str]) -> list[float]:
    """The mean of ROUGE-1, -2 and -L (F, no stemmer) of a text for each post with the post's reference."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    return [
        mean(part.fmeasure for part in scorer.score(post.summary or "", text).values())
        for post, text in zip(posts, texts, strict=True)
    ]
