"""Verdicts of people: blind comparisons of every policy's summaries with the references.

The run waits (`tldr.errors.Waiting`) until there are enough. Its labeling folder keeps the items, so that
starting it again asks nothing twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from tldr.judge.pairs import SummaryPair
from tldr.judge.prompt import JudgedText
from tldr.label.batch import ask, note_counted
from tldr.label.export import to_record, write_labels
from tldr.label.given import GivenLabel
from tldr.label.items import LabelItem
from tldr.label.make import REFERENCE, info_for
from tldr.records import CandidateSummary, Comparison, Post, write_json, write_records
from tldr.stages.judge import JudgeRun
from tldr.stages.judge.algorithm import wanted_of
from tldr.stages.judge.stage import pairs_of, pool_pairs_of, pools_told
from tldr.train.rng import derive

POOL_COMPARISONS = "pool_comparisons.jsonl"
"""Verdicts on the best of pools, which are no samples of a policy of the study."""

Texts = Mapping[tuple[str, str], list[str]]
"""Post id and text -> the policies, with their ways of sampling, that wrote it."""


def run(ctx: JudgeRun) -> None:
    """Write ``comparisons.jsonl`` in OpenAI's fields, ``judge.json`` and, in ``given/``, all labels; where
    pools are judged, ``pool_comparisons.jsonl``.

    Inputs: ``data``, ``samples-<name>`` and ``pool-<size>`` for all that is judged. A text that several
    policies wrote about a post is asked once, and counts for each of them.

    Raises:
        Waiting: there are not enough labels yet.
        UsageError: people have labeled other items.
    """
    samples, pools = pairs_of(ctx), pool_pairs_of(ctx)
    pairs = [*samples, *pools]
    texts = by_text(pairs)
    items = items_of(texts, {pair.post.id: pair.post for pair in pairs}, derive(ctx.seed, "judged"))
    wanted = wanted_of(len(items), ctx.settings)
    batch = ask(ctx.folder, items, ctx.settings.page, wanted, run=ctx.run, seed=ctx.seed)
    (taken,) = batch.taken.values()
    of_samples, of_pools = by_text(samples), by_text(pools)
    rows = (row for label in taken for row in verdicts(label, of_samples))
    write_records(ctx.folder / "comparisons.jsonl", rows)
    if ctx.inputs.pools:
        rows = (row for label in taken for row in verdicts(label, of_pools))
        write_records(ctx.folder / POOL_COMPARISONS, rows)
    write_labels(batch.labels, ctx.folder / "given")
    empty = sum(not pair.texts[0].strip() for pair in pairs)
    report = {"judge": "people", "items": len(items), "answered": len(taken), "empty_summaries": empty}
    write_json(ctx.folder / "judge.json", report | pools_told(ctx, pools))
    note_counted(batch.folder, batch.labels)


def by_text(pairs: Sequence[SummaryPair]) -> Texts:
    """The policies that wrote each text that people can be asked about; empty ones are left out."""
    found: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        if text := pair.texts[0].strip():
            policies = found.setdefault((pair.post.id, text), [])
            policies += [pair.policies[0]] if pair.policies[0] not in policies else []
    return found


def items_of(texts: Texts, posts: Mapping[str, JudgedText], seed: int) -> list[LabelItem]:
    """A comparison with the reference for each text, in an order that mixes policies and posts.

    Labelers see neither the policies' names nor the items' ids, and the page draws which summary comes first.
    """
    order = list(texts.items())
    random.Random(seed).shuffle(order)
    width = len(str(len(order)))
    return [
        LabelItem(
            id=f"judge-{number:0{width}d}",
            kind="comparison",
            info=info_for(post),
            summaries=[
                CandidateSummary(text=text, policy=policies[0]),
                CandidateSummary(text=(post.summary or "").strip(), policy=REFERENCE),
            ],
            batch="judge",
            split="valid2",
        )
        for number, ((id, text), policies) in enumerate(order)
        if isinstance(post := posts[id], Post)
    ]


def verdicts(label: GivenLabel, texts: Texts) -> Iterator[Comparison]:
    """A label, once for each policy of `texts` that wrote the text."""
    record = to_record(label)
    assert isinstance(record, Comparison)
    own, reference = record.summaries
    for policy in texts.get((str(record.info.id), own.text), []):
        named = own.model_copy(update={"policy": policy})
        yield record.model_copy(update={"summaries": [named, reference]})
