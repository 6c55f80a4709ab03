"""Local scorers for judging summaries: reward models and embedding similarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tldr.errors import UsageError
from tldr.queries.encode import encode_queries, encode_responses
from tldr.records import Article, Post
from tldr.settings.base import Precision
from tldr.settings.models import Lengths
from tldr.stages.shared.device import Device
from tldr.stages.shared.networks import open_reward
from tldr.stages.shared.summary_scorer import SummaryScorer
from tldr.stages.shared.tokenizers import open_tokenizer

UNCUT = 1_000_000
"""Tokens that no summary has."""

LocalJudge = Callable[[Sequence[Post | Article], Sequence[str]], list[float]]
"""Scores of (n,) summaries of (n,) posts, higher is better."""


def reward_scores(
    checkpoint: Path,
    lengths: Lengths,
    precision: Precision = "auto",
    *,
    shared: bool = False,
    cut: bool = False,
) -> LocalJudge:
    """A reward model's scores, each read at its summary's EOS, shift applied.

    Args:
        checkpoint: a reward run's folder or a checkpoint. lengths: the windows it was trained with.
        shared: all processes of the run score together (`Device.open`).
        cut: a summary longer than the window is cut, as in training, not refused.

    Raises:
        UsageError: a summary longer than the window. CheckpointError: no reward model there.
    """
    device = Device.open(precision, shared=shared)
    tokenizer = open_tokenizer(checkpoint)
    reward = open_reward(checkpoint, device)

    def scores(posts: Sequence[Post | Article], texts: Sequence[str]) -> list[float]:
        ids = encode_responses(tokenizer, texts, lengths.rm_response if cut else UNCUT)
        if (longest := max(map(len, ids))) > lengths.rm_response:
            raise UsageError(
                f"a summary of {longest} tokens is longer than the reward model's window",
                where="lengths.rm_response",
            )
        places: dict[str, list[int]] = {}  # a post is read once for all its summaries
        for place, post in enumerate(posts):
            places.setdefault(post.id, []).append(place)
        queries = encode_queries(tokenizer, [posts[same[0]] for same in places.values()], lengths.query)
        responses = [[ids[place] for place in same] for same in places.values()]
        rows = SummaryScorer(tokenizer, queries, responses, device).rewards(reward)
        found = {
            place: score
            for same, row in zip(places.values(), rows, strict=True)
            for place, score in zip(same, row, strict=True)
        }
        return [found[place] for place in range(len(texts))]

    return scores


def embedding_scores(model: str) -> LocalJudge:
    """Cosine of the embeddings of summary and post body: a cheap baseline, blind to order and quality.

    Args:
        model: a sentence-transformers model, by folder or hub name; only safetensors are loaded.

    Raises:
        UsageError: sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UsageError(
            "embeddings need the sentence-transformers package", remedy="pip install 'tldr-feedback[embed]'"
        ) from None
    encoder = SentenceTransformer(model, model_kwargs={"use_safetensors": True})

    def scores(posts: Sequence[Post | Article], texts: Sequence[str]) -> list[float]:
        bodies = {post.id: post.post if isinstance(post, Post) else post.article for post in posts}
        vectors = encoder.encode(
            [*bodies.values(), *texts], normalize_embeddings=True, show_progress_bar=False
        )
        of_post = dict(zip(bodies, vectors[: len(bodies)], strict=True))
        summaries = vectors[len(bodies) :]
        return [float(of_post[post.id] @ vector) for post, vector in zip(posts, summaries, strict=True)]

    return scores
