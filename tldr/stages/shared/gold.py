"""The toy world's planted truth about summaries."""

from __future__ import annotations

from collections.abc import Sequence

from tldr.records import Article, Info, Post
from tldr.toy.gold import preference_probability, utility


def has_gold(posts: Sequence[Post | Article]) -> bool:
    """Whether the posts carry the toy world's planted facts."""
    return all("facts" in (post.model_extra or {}) for post in posts)


def gold_scores(post: Post | Info, text: str, stopped: bool) -> dict[str, float]:
    """The planted truth of a summary: utility, its axes, P(a labeler prefers it to the reference)."""
    mine = utility(post, text, stopped=stopped)
    scores = {
        "gold": mine.overall,
        "gold_coverage": mine.coverage,
        "gold_accuracy": mine.accuracy,
        "gold_coherence": mine.coherence,
    }
    if isinstance(post, Post) and post.summary is not None:
        reference = utility(post, post.summary, stopped=True)
        scores["gold_reference"] = reference.overall
        scores["gold_preference"] = float(preference_probability(mine.overall, reference.overall))
    return scores
