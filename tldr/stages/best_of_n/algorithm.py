"""The best of N samples of a post, by reward model, gold or ROUGE (P 4.3)."""

from __future__ import annotations

from tldr.records import Post, Sample
from tldr.stages.best_of_n.settings import BestOfNSettings
from tldr.stages.shared.gold import gold_scores, has_gold
from tldr.stages.shared.rouge import rouge_scores


def with_other_scores(pool: list[Sample], posts: list[Post], settings: BestOfNSettings) -> list[Sample]:
    """Gold scores where the world has them; ROUGE (mean of R-1/2/L F, no stemmer) where asked for."""
    by_id = {post.id: post for post in posts}
    gold, rouge = has_gold(posts), list[float]()
    if "rouge" in settings.scorers:
        rouge = rouge_scores([by_id[sample.id] for sample in pool], [sample.text for sample in pool])
    scored = []
    for place, sample in enumerate(pool):
        scores, post = dict(sample.scores), by_id[sample.id]
        if gold:
            scores.update(gold_scores(post, sample.text, bool(sample.stopped)))
        if rouge:
            scores["rouge"] = rouge[place]
        scored.append(sample.model_copy(update={"scores": scores}))
    return scored


def choose(pool: list[Sample], n: int, scorer: str) -> list[Sample]:
    """The highest-scored of each consecutive `n` samples; the first wins a tie."""
    best = []
    for start in range(0, len(pool), n):
        top = max(pool[start : start + n], key=lambda sample: sample.scores[scorer])
        name = f"best_of_{n}" + ("" if scorer == "rm" else f"_{scorer}")
        size = top.tags.get("size")
        best.append(
            top.model_copy(
                update={
                    "policy": f"{name}-{size}" if size else name,
                    "n": n,
                    "tags": {**top.tags, "method": "best_of_n", "scorer": scorer},
                }
            )
        )
    return best
