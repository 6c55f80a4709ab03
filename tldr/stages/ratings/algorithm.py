"""Ratings of summaries on the paper's four axes by simulated labelers (P C.1, Figs. 3 and 12)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tldr.measures.sentences import lead
from tldr.records import Post, Rating, Sample
from tldr.toy.labelers import Candidate, rate


def rate_baselines(posts: Sequence[Post], rng: random.Random) -> list[Rating]:
    """Ratings of each post's reference, title and lead-2."""
    rows: list[Rating] = []
    for post in posts:
        texts = {"reference": post.summary or "", "title": post.title}
        texts["lead-2"] = lead(post.post)
        rows += [rate(post, Candidate(text, name), rng) for name, text in texts.items()]
    return rows


def rate_policy(samples: Sequence[Sample], posts: Sequence[Post], rng: random.Random) -> list[Rating]:
    """Ratings of one policy's samples at its lowest temperature."""
    by_id = {post.id: post for post in posts}
    coldest = min(sample.temperature for sample in samples)
    return [
        rate(by_id[sample.id], Candidate(sample.text, sample.policy, sample.stopped is not False), rng)
        for sample in samples
        if sample.id in by_id and sample.temperature == coldest and sample.top_p == 1
    ]
