"""What a policy summarizes, the query it is given (TL;DR, zero-shot with examples, or news), and how it is
sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tldr.errors import UsageError
from tldr.inputs.posts import check_disjoint, load_articles, post_keys
from tldr.queries.encode import encode_queries
from tldr.queries.zero_shot import choose_examples, zero_shot_queries
from tldr.records import Article, Post
from tldr.stages.shared.context import RunContext
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.sampling import Sampling
from tldr.stages.shared.settings import NEWS, EvaluationSettings, ZeroShot


class ReportingInputs(Protocol):
    """Inputs of a stage that reports on the posts of a data folder."""

    @property
    def data(self) -> Path:
        """The data folder."""


ReportingRun: TypeAlias = RunContext[EvaluationSettings, ReportingInputs]


def is_pretrained(ctx: ReportingRun) -> bool:
    """Whether the run's policy is one without fine-tuning (tag ``method: pretrained``)."""
    return ctx.tags.get("method") == "pretrained"


def reporting_set(ctx: ReportingRun) -> Sequence[Post | Article]:
    """What the run reports on: ``valid2.jsonl``, or the file that the tag ``dataset`` names: ``cnndm.jsonl``
    of articles, or further posts such as ``test.jsonl``."""
    dataset = str(ctx.tags.get("dataset") or "valid2")
    if dataset == NEWS:
        return load_articles(ctx.inputs.data / f"{NEWS}.jsonl")
    return read_posts(ctx.inputs.data, dataset)


def policy_queries(
    ctx: ReportingRun,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Post | Article],
) -> list[list[int]]:
    """The tokens after which the run's policy writes its summaries, the same for sampling and scoring.

    A pretrained policy reads the paper's zero-shot format behind in-context examples from
    ``sft.jsonl``, if `Evaluation.zero_shot` asks for it; every other one the TL;DR format. Articles are
    in the format of the TL;DR policies' transfer (``{article}\\n\\nTL;DR:``) for all policies.

    Raises:
        UsageError: too few SFT posts can be examples, or one of them is among `sources`.
    """
    zero_shot = _zero_shot(ctx)
    if zero_shot is None:
        return encode_queries(tokenizer, sources, ctx.lengths.query)
    examples = choose_examples(tokenizer, read_posts(ctx.inputs.data, "sft"), zero_shot.examples)
    check_disjoint({"zero-shot examples": post_keys(examples)}, {"evaluation posts": post_keys(sources)})
    return zero_shot_queries(tokenizer, sources, examples, zero_shot.query_tokens)


def _zero_shot(ctx: ReportingRun) -> ZeroShot | None:
    """The in-context examples' settings, where the run uses them."""
    on_posts = ctx.tags.get("dataset") != NEWS
    return ctx.settings.zero_shot if is_pretrained(ctx) and on_posts else None


def check_window(ctx: ReportingRun, policy: PreTrainedModel) -> None:
    """Refuse a zero-shot window longer than the policy's positions, before anything is sampled."""
    zero_shot = _zero_shot(ctx)
    if zero_shot is None:
        return
    context = int(policy.config.max_position_embeddings)
    if zero_shot.query_tokens + ctx.lengths.response > context:
        raise UsageError(
            f"{zero_shot.query_tokens} query and {ctx.lengths.response} response tokens do not fit into "
            f"the model's context of {context}",
            where="evaluation.zero_shot.query_tokens",
            remedy=f"set it to at most {context - ctx.lengths.response}",
        )


def ways_of_sampling(settings: EvaluationSettings, method: str) -> list[Sampling]:
    """Every way in which a policy is sampled, each once; SFT policies have more of them (Fig. 8)."""
    further = settings.sft_temperatures if method == "sft" else []
    top_ps = settings.sft_top_ps if method == "sft" else []
    newline = method == "pretrained"
    ways = [Sampling(temperature=t, stop_newline=newline) for t in [*settings.temperatures, *further]]
    ways += [Sampling(temperature=1.0, top_p=share, stop_newline=newline) for share in top_ps]
    return list(dict.fromkeys(ways))
