"""Items from posts and summaries: the paper's batches.

A batch asks about any two policies, at several temperatures, and about references and best-of-N. In each
batch a set share of the comparisons is between a supervised policy and the reference, so that drift between
batches shows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from tldr.errors import UsageError
from tldr.inputs.posts import body_hash
from tldr.label.answers import TaskKind
from tldr.label.items import MOST_RANKED, LabelItem
from tldr.records import CandidateSummary, Comparison, Info, Post, Sample
from tldr.settings.base import Settings, Unit

REFERENCE = "ref"
"""The policy's name of a post's own summary, as in OpenAI's files."""


class ItemPlan(Settings):
    """What to ask in a batch."""

    kind: TaskKind = "comparison"
    """The task."""
    count: PositiveInt = 500
    """Items."""
    batch: str = "batch1"
    """The batch's name, in every label."""
    split: Literal["train", "test", "valid1", "valid2"] = "train"
    """What the labels are for."""
    k: Annotated[int, Field(ge=2, le=MOST_RANKED)] = 4
    """Summaries of a ranking."""
    control: Unit = 0.0
    """Share of the comparisons between `supervised` and the reference, in every batch the same."""
    supervised: str | None = None
    """The policy of these comparisons, as named in `policy_name`."""
    seed: int = 0
    """Of the draw."""

    @model_validator(mode="after")
    def _names_the_control(self) -> ItemPlan:
        if self.control and self.supervised is None:
            raise ValueError("control needs supervised: the policy that is compared with the reference")
        if self.control and self.kind != "comparison":
            raise ValueError("control is a share of comparisons")
        return self


def policy_name(sample: Sample) -> str:
    """A sample's policy, with temperature and best-of-N where they are not 1: ``ppo-t0.7``, ``sft-bo64``."""
    temperature = f"-t{sample.temperature:g}" if sample.temperature != 1 else ""
    best = f"-bo{sample.n}" if sample.n > 1 else ""
    return f"{sample.policy}{temperature}{best}"


Pools = Mapping[str, Mapping[str, Sequence[str]]]
"""Post id -> policy -> its different texts."""


def pools_of(posts: Sequence[Post], samples: Iterable[Sample]) -> Pools:
    """The summaries of each post by policy, without empty ones; a post's own is the policy ``ref``.

    Raises:
        UsageError: a sample is about none of the posts.
    """
    found: dict[str, dict[str, list[str]]] = {post.id: {} for post in posts}
    named = [(post.id, REFERENCE, post.summary or "") for post in posts]
    named += [(sample.id, policy_name(sample), sample.text) for sample in samples]
    for id, policy, text in named:
        if id not in found:
            raise UsageError(
                f"a sample of {policy} is about the post '{id}'",
                remedy="give the posts that were sampled for",
            )
        texts = found[id].setdefault(policy, [])
        if text.strip() and text.strip() not in texts:
            texts.append(text.strip())
    return {id: {policy: texts for policy, texts in row.items() if texts} for id, row in found.items()}


def make_items(posts: Sequence[Post], samples: Iterable[Sample], plan: ItemPlan) -> list[LabelItem]:
    """The items of a batch; the same arguments give the same items.

    Posts are taken in a random order, and again from the start if there are more items than posts. No item is
    repeated. Policies are drawn alike, whatever their numbers of samples; two texts of an item differ.

    Raises:
        UsageError: the posts and samples do not allow so many items.
    """
    rng = random.Random(f"{plan.seed}/{plan.batch}/{plan.kind}")
    pools = pools_of(posts, samples)
    order = rng.sample(list(posts), len(posts))
    controls = round(plan.control * plan.count)
    taken: dict[tuple[str, ...], tuple[Post, list[CandidateSummary]]] = {}
    pair = None if plan.supervised is None else (plan.supervised, REFERENCE)
    for wanted, policies in ((controls, pair), (plan.count - controls, None)):
        _fill(taken, wanted, order, partial(_drawn, rng, pools, plan, policies))
    drawn = list(taken.values())
    rng.shuffle(drawn)
    width = len(str(plan.count - 1))
    return [
        LabelItem(
            id=f"{plan.batch}-{plan.kind}-{number:0{width}d}",
            kind=plan.kind,
            info=info_for(post),
            summaries=summaries,
            batch=plan.batch,
            split=plan.split,
        )
        for number, (post, summaries) in enumerate(drawn)
    ]


def info_for(post: Post) -> Info:
    """A post as labels carry it: everything but its summary."""
    return Info.model_validate(post.model_dump(exclude={"summary"}, exclude_unset=True))


def _fill(
    taken: dict[tuple[str, ...], tuple[Post, list[CandidateSummary]]],
    wanted: int,
    order: Sequence[Post],
    draw: Callable[[Post], list[CandidateSummary] | None],
) -> None:
    """Draw until there are `wanted` more items; a whole round of posts without a new one ends it."""
    goal, fruitless, place = len(taken) + wanted, 0, 0
    while len(taken) < goal:
        post = order[place % len(order)]
        place += 1
        summaries = draw(post)
        key = (body_hash(post), *sorted(summary.text for summary in summaries or ()))
        if summaries is not None and key not in taken:
            taken[key] = (post, summaries)
            fruitless = 0
        elif (fruitless := fruitless + 1) > 4 * len(order):
            raise UsageError(
                f"the posts and samples allow no more than about {len(taken)} different items",
                where="count",
                remedy="ask for fewer, or give more posts or samples",
            )


def _drawn(
    rng: random.Random, pools: Pools, plan: ItemPlan, pair: tuple[str, str] | None, post: Post
) -> list[CandidateSummary] | None:
    """The summaries of one item about a post; None if the post has too few."""
    texts = pools[post.id]
    need = {"comparison": 2, "ranking": plan.k, "rating": 1, "demonstration": 0}[plan.kind]
    if pair is not None:
        if any(policy not in texts for policy in pair):
            return None
        chosen = [CandidateSummary(text=rng.choice(texts[policy]), policy=policy) for policy in pair]
    else:
        chosen = []
        policies = rng.sample(sorted(texts), len(texts))
        # every policy once before any comes again
        again = rng.choices(policies, k=4 * need) if policies else []
        for policy in [*policies, *again]:
            text = rng.choice(texts[policy])
            if len(chosen) < need and all(text != other.text for other in chosen):
                chosen.append(CandidateSummary(text=text, policy=policy))
    if len(chosen) < need or len({summary.text for summary in chosen}) < len(chosen):
        return None
    rng.shuffle(chosen)
    # as in OpenAI's files, a text begins with one space
    return [CandidateSummary(text=f" {summary.text}", policy=summary.policy) for summary in chosen]


def calibration_items(known: Iterable[Comparison]) -> list[LabelItem]:
    """Comparisons with a researcher's answer, as items that test labelers. Equal ones are one item, whose id
    depends on its content alone."""
    rows = {hashlib.sha256(row.to_json().encode()).hexdigest()[:10]: row for row in known}
    return [
        LabelItem(
            id=f"known-{digest}",
            kind="comparison",
            info=row.info,
            summaries=row.summaries,
            batch=row.batch,
            split=row.split,
            role="calibration",
            known={"confidence": row.extra.confidence or (9 if row.choice else 1)},
        )
        for digest, row in rows.items()
    ]
