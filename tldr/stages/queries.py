"""The query that a policy is given: the TL;DR format, or zero-shot with examples for a base model."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.config import Evaluation
from tldr.data.sources import check_disjoint, post_keys
from tldr.data.zero_shot import choose_examples, zero_shot_queries
from tldr.errors import UsageError
from tldr.records import Post
from tldr.stages.common import encode_posts, read_posts
from tldr.stages.context import RunContext


def is_pretrained(ctx: RunContext[Evaluation]) -> bool:
    """Whether the run's policy is one without fine-tuning (tag ``method: pretrained``)."""
    return ctx.tags.get("method") == "pretrained"


def policy_queries(
    ctx: RunContext[Evaluation], tokenizer: PreTrainedTokenizerBase, posts: Sequence[Post]
) -> list[list[int]]:
    """The tokens after which the run's policy writes its summaries, the same for sampling and scoring.

    A pretrained policy reads the paper's zero-shot format behind in-context examples from
    ``sft.jsonl``, if `Evaluation.zero_shot` asks for it; every other one the TL;DR format.

    Raises:
        UsageError: too few SFT posts can be examples, or one of them is among `posts`.
    """
    zero_shot = ctx.settings.zero_shot
    if zero_shot is None or not is_pretrained(ctx):
        return encode_posts(tokenizer, posts, ctx.lengths)
    source = read_posts(ctx.inputs["data"], "sft")
    examples = choose_examples(tokenizer, source, zero_shot.examples)
    check_disjoint({"zero-shot examples": post_keys(examples)}, {"evaluation posts": post_keys(posts)})
    return zero_shot_queries(tokenizer, posts, examples, zero_shot.query_tokens)


def check_window(ctx: RunContext[Evaluation], policy: PreTrainedModel) -> None:
    """Refuse a zero-shot window longer than the policy's positions, before anything is sampled."""
    zero_shot = ctx.settings.zero_shot
    if zero_shot is None or not is_pretrained(ctx):
        return
    context = int(policy.config.max_position_embeddings)
    if zero_shot.query_tokens + ctx.lengths.response > context:
        raise UsageError(
            f"{zero_shot.query_tokens} query and {ctx.lengths.response} response tokens do not fit into "
            f"the model's context of {context}",
            where="evaluation.zero_shot.query_tokens",
            remedy=f"set it to at most {context - ctx.lengths.response}",
        )
