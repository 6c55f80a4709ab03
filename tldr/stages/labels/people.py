"""Labels by people: items from what the policies write, a folder to label them in, and the labels given.

The run waits (`tldr.errors.Waiting`) until there are enough. Its own folder keeps the items, so starting it
again samples nothing again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from tldr.errors import UsageError, Waiting
from tldr.inputs.leakage import check_leaks, folder_keys
from tldr.inputs.posts import post_keys
from tldr.label.batch import (
    Wanted,
    as_counted,
    counting,
    labeling_folder,
    labelled,
    note_counted,
    publish,
    read_given,
    take,
)
from tldr.label.export import to_record, write_labels
from tldr.label.given import GivenLabel
from tldr.label.items import LabelItem, read_items
from tldr.label.make import ItemPlan, make_items, policy_name
from tldr.label.project import ITEMS
from tldr.records import Comparison, Post, Ranking, Sample, write_json, write_records
from tldr.stages.labels import LabelsRun
from tldr.stages.labels.algorithm import POSTS, LabelQuestion
from tldr.stages.labels.stage import sample
from tldr.stages.shared.posts import read_posts
from tldr.stages.shared.sample_records import to_sample
from tldr.train.rng import derive


def run(ctx: LabelsRun) -> None:
    """Write ``train``, ``valid1`` and ``valid2`` rankings, ``agreement.json`` and, in ``given/``, all labels.

    Inputs: ``data``, ``policy-<name>`` for all that are sampled, and ``chooser-<name>`` for best-of-N.

    Raises:
        Waiting: there are not enough labels yet.
        UsageError: people have labeled other items, or sets share posts that they may not share.
    """
    if not ctx.inputs.policies:
        raise UsageError(
            "no policy to sample", where="labels", remedy="give at least one policy-<size> input"
        )
    items, folder = items_of(ctx), labeling_folder(ctx.folder.parent, ctx.folder.name)
    publish(folder, items, ctx.settings.page)
    wanted = Wanted(ctx.settings.items_wanted(), ctx.settings.page.labelers_per_item)
    labels = as_counted(folder, read_given(folder), wanted)
    counted = counting(labels)
    state = labelled(counted, wanted)
    if not state.enough:
        raise Waiting(str(state), where=ctx.run, remedy=f"next: tldr-lab label serve {folder}")
    taken = take(counted, wanted, ctx.seed)
    for split, rows in taken.items():
        write_records(ctx.folder / f"{split}.jsonl", map(as_ranking, rows))
    write_labels(labels, ctx.folder / "given")
    found = state.agreement or {}
    report = {
        "agreement": found.get("share"),  # null where no two people have answered one item
        "interval": [found.get("low"), found.get("high")],
        "pairs": found.get("n", 0),
        "rankings": {split: len(rows) for split, rows in taken.items()},
    }
    write_json(ctx.folder / "agreement.json", report)
    note_counted(folder, labels)


def as_ranking(label: GivenLabel) -> Ranking:
    """A label as reward models read it."""
    record = to_record(label)
    if isinstance(record, Comparison):
        return Ranking.from_comparison(record)
    assert isinstance(record, Ranking)
    return record


def items_of(ctx: LabelsRun) -> list[LabelItem]:
    """The run's items: those in its folder, or new ones."""
    file = ctx.folder / ITEMS
    if file.exists():
        return read_items(file)
    items = make_batch(ctx)
    write_records(file, items)
    return items


def make_batch(ctx: LabelsRun) -> list[LabelItem]:
    """The items of a round, of all splits in one random order, and behind them the spare ones.

    Equal runs make equal items. No post is shown that the guard against leaks forbids.
    """
    rng = random.Random(derive(ctx.seed, "asked"))
    wanted = ctx.settings.items_wanted()
    totals = {split: ceil(count * (1 + ctx.settings.spare)) for split, count in wanted.items()}
    posts: dict[str, list[Post]] = {}
    for split, name in POSTS.items():
        every = read_posts(ctx.inputs.data, name, references=True)
        posts[split] = rng.sample(every, min(totals[split], len(every)))
    data = folder_keys(ctx.inputs.data)
    check_leaks(data | {f"labels/{split}": post_keys(own) for split, own in posts.items()})
    samples = samples_of(ctx, posts)
    first: list[LabelItem] = []
    spare: list[LabelItem] = []
    for split in POSTS:
        made: list[LabelItem] = []
        for plan in plans(ctx, split, totals[split]):
            made += make_items(posts[split], samples[split], plan)
        rng.shuffle(made)
        first += made[: wanted[split]]
        spare += made[wanted[split] :]
    rng.shuffle(first)
    batch = batch_name(list(ctx.inputs.policies))
    return [item.model_copy(update={"batch": batch}) for item in first + spare]


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
    slots = list(ctx.inputs.policies)
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
                row = to_sample(ctx, question.post.id, draws[0], policy, temperature=temperature, n=n)
                found[question.split].append(row)
    return found
