"""What people are asked in a round: items from what the policies write, the paper's batches.

A batch asks about any two policies, at all temperatures, and about references and best-of-N.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tldr.inputs.leakage import check_leaks, folder_keys
from tldr.inputs.posts import post_keys
from tldr.label.items import LabelItem
from tldr.label.make import ItemPlan, make_items, policy_name
from tldr.records import Post, Sample
from tldr.stages.labels import LabelsRun
from tldr.stages.labels.algorithm import POSTS, LabelQuestion
from tldr.stages.labels.choosing import most_telling
from tldr.stages.labels.stage import sample
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.sample_records import to_sample
from tldr.train.rng import derive


def make_batch(ctx: LabelsRun) -> list[LabelItem]:
    """The items of a round, of all splits in one random order, and behind them the spare ones.

    Equal runs make equal items. No post is shown that the guard against leaks forbids.
    """
    rng = random.Random(derive(ctx.seed, "asked"))
    settings = ctx.settings
    wanted, totals, sampled = settings.items_wanted(), settings.items_made(), settings.posts_sampled()
    posts: dict[str, list[Post]] = {}
    for split, name in POSTS.items():
        every = read_posts(ctx.inputs.data, name, references=True)
        posts[split] = rng.sample(every, min(sampled[split], len(every)))
    data = folder_keys(ctx.inputs.data)
    check_leaks(data | {f"labels/{split}": post_keys(own) for split, own in posts.items()})
    samples = samples_of(ctx, posts)
    posts = {split: _with_references(settings.references, own) for split, own in posts.items()}
    first: list[LabelItem] = []
    spare: list[LabelItem] = []
    for split in POSTS:
        made: list[LabelItem] = []
        for plan in plans(ctx, split, totals[split]):
            if settings.choose_by is None or split != "train":
                made += make_items(posts[split], samples[split], plan)
            else:
                made += telling_items(ctx, posts[split], samples[split], plan)
        rng.shuffle(made)
        first += made[: wanted[split]]
        spare += made[wanted[split] :]
    rng.shuffle(first)
    batch = batch_name(list(ctx.inputs.policies))
    return [item.model_copy(update={"batch": batch}) for item in first + spare]


def telling_items(
    ctx: LabelsRun, posts: Sequence[Post], samples: Sequence[Sample], plan: ItemPlan
) -> list[LabelItem]:
    """The items of a plan: of `among` times as many those that tell the most, and the control as it comes."""
    control = round(plan.control * plan.count)
    made: list[LabelItem] = []
    if control:
        changes = {"count": control, "control": 1.0, "batch": f"{plan.batch}-control"}
        made += make_items(posts, samples, plan.model_copy(update=changes))
    if plan.count > control:
        changes = {"count": (plan.count - control) * ctx.settings.among, "control": 0.0}
        more = make_items(posts, samples, plan.model_copy(update=changes))
        made += most_telling(ctx, more, plan.count - control, _as_shown)
    return made


def _as_shown(item: LabelItem) -> tuple[Post, list[str]]:
    """The post of an item, as reward models read it, and its summaries."""
    post = Post.model_validate(item.info.model_dump(exclude_unset=True))
    return post, [summary.text for summary in item.summaries]


def _with_references(share: float, posts: Sequence[Post]) -> list[Post]:
    """The posts, only the first of which, by their share, have their reference."""
    kept = round(share * len(posts))
    return [*posts[:kept], *(post.model_copy(update={"summary": None}) for post in posts[kept:])]


def batch_name(policies: Sequence[str]) -> str:
    """``round1`` where only SFT policies write, ``round2`` where one earlier round's policies do."""
    earlier = {name.rpartition("-r")[2] for name in policies if name.startswith("ppo-")}
    return f"round{len(earlier) + 1}"


def plans(ctx: LabelsRun, split: str, count: int) -> list[ItemPlan]:
    """The plans of a split's items: one for each number of summaries shown at once, in equal parts."""
    settings, policies = ctx.settings, list(ctx.inputs.policies)
    smallest, largest = settings.k
    sizes = range(smallest, largest + 1)
    supervised = [name for name in policies if name.startswith("sft-")] or policies
    found = []
    for place, k in enumerate(sizes):
        control = settings.control if k == 2 else 0.0
        first = Sample(id="any", policy=supervised[-1], text="", temperature=settings.temperature)
        own = (count - place + len(sizes) - 1) // len(sizes)
        if own:
            plan = {
                "kind": "comparison" if k == 2 else "ranking",
                "count": own,
                "batch": f"{batch_name(policies)}-{split}" + (f"-k{k}" if len(sizes) > 1 else ""),
                "split": split,
                "k": k,
                "control": control,
                "supervised": policy_name(first) if control else None,
                "seed": derive(ctx.seed, "items", split, k),
            }
            found.append(ItemPlan.model_validate(plan))
    return found


def samples_of(ctx: LabelsRun, posts: Mapping[str, Sequence[Post]]) -> dict[str, list[Sample]]:
    """What every policy writes about every post at every temperature, by split."""
    slots = list(ctx.inputs.policies) * ctx.settings.draws(len(ctx.inputs.policies))
    questions = [LabelQuestion(post, split, slots) for split, own in posts.items() for post in own]
    found: dict[str, list[Sample]] = {split: [] for split in posts}
    for number, temperature in enumerate(ctx.settings.temperatures):
        settings = ctx.settings.model_copy(update={"temperature": temperature})
        # temperatures after the first have random numbers of their own
        seed = derive(ctx.seed, "temperature", number) if number else ctx.seed
        for question, drawn in zip(
            questions, sample(replace(ctx, settings=settings, seed=seed), questions), strict=True
        ):
            for policy, draws in drawn.items():
                n = ctx.settings.best_of if policy in ctx.inputs.choosers else 1
                found[question.split] += [
                    to_sample(ctx, question.post.id, draw, policy, temperature=temperature, n=n)
                    for draw in draws
                ]
    return found
