"""Samples as they are scored: the posts they belong to, their token traces, their ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from tldr.errors import RecordError
from tldr.mathematics.rewards import apply_eos_rule
from tldr.queries.zero_shot import newline_ids
from tldr.records import Article, Post, Sample, TokenTrace
from tldr.settings.models import Lengths
from tldr.stages.shared.summary_scorer import TokenIds, sample_ids
from tldr.stages.shared.tokenizers import eos_id


@dataclass(frozen=True)
class Optimised:
    """What a PPO run optimised: its last KL coefficient, and its rule for responses without EOS."""

    beta: float
    missing: Literal["none", "replace", "subtract"] = "none"
    value: float = 0.0

    def score(self, sample: Sample) -> float:
        """The reward model's score of a sample after the rule."""
        score = torch.tensor(sample.scores["rm"], dtype=torch.float64)
        stopped = torch.tensor(sample.stopped is not False)
        return float(apply_eos_rule(score, stopped, missing=self.missing, value=self.value))


def token_traces(
    samples: list[Sample],
    tokens: dict[str, list[list[float]]],
    values: list[list[float]] | None,
    optimised: Optimised | None,
    tokenizer: PreTrainedTokenizerBase,
    lengths: Lengths,
) -> list[TokenTrace]:
    """Token by token, the samples drawn in the first way (the headline's).

    A token's reward is the KL penalty at the coefficient with which the PPO run ended, and at the
    last token the reward model's score too, after that run's rule for responses without EOS; without a
    PPO run there is none.

    Args:
        tokens: log-probabilities of every sample's tokens, by their names.
        values: of every sample's tokens.
        optimised: what the PPO run optimised.
        tokenizer: of the policy.
    """
    way = (samples[0].temperature, samples[0].top_p)
    rows = []
    for index, sample in enumerate(samples):
        if (sample.temperature, sample.top_p) != way:
            continue
        ids = sample_ids(sample, tokenizer, lengths)
        parts = {name: of_sample[index] for name, of_sample in tokens.items()}
        if values is not None:
            parts["value"] = values[index]
        if optimised is not None and "logprob_sft" in parts and "rm" in sample.scores:
            pairs = zip(parts["logprob"], parts["logprob_sft"], strict=True)
            parts["reward"] = [-optimised.beta * (mine - sft) for mine, sft in pairs]
            parts["reward"][-1] += optimised.score(sample)
        rows.append(
            TokenTrace(
                id=sample.id,
                policy=sample.policy,
                run=sample.run,
                temperature=sample.temperature,
                pieces=[str(tokenizer.decode([token])) for token in ids],
                **{name: [round(value, 4) for value in part] for name, part in parts.items()},
            )
        )
    return rows


def in_order(groups: list[list[int]], rows: list[list[list[float]]]) -> list[list[float]]:
    """Values of posts' samples in the order of the samples.

    Args:
        groups: indices of each post's samples.
        rows: values of each post's samples; what comes after them (its reference's) is left out.
    """
    values: list[list[float]] = [[] for _ in range(sum(map(len, groups)))]
    for group, row in zip(groups, rows, strict=True):
        for index, of_sample in zip(group, row, strict=False):
            values[index] = of_sample
    return values


def end_with_eos(tokenizer: PreTrainedTokenizerBase, responses: list[list[TokenIds]]) -> None:
    """Put EOS for the newline that ended a zero-shot summary: other models know no other end."""
    newlines = newline_ids(tokenizer)
    for row in responses:
        row[:] = [[*ids[:-1], eos_id(tokenizer)] if ids[-1] in newlines else ids for ids in row]


def post_of(sample: Sample, posts: dict[str, Post | Article]) -> Post | Article:
    if sample.id not in posts:
        raise RecordError(
            f"sample of post {sample.id}, which is not among the posts given",
            remedy="give the post file that the samples were drawn from",
        )
    return posts[sample.id]
