"""Length, stopping, KL from the SFT start, and wording of samples: one column per measure.

Length is always given with its unit; tokens count the EOS, words are split at white space,
characters are the text's without surrounding space.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from eval.common.io import join_by_post
from eval.common.stats import Estimate, cells_of, cellwise, jackknife
from eval.common.tables import (
    GROUP,
    Measure,
    MeasuredResult,
    group_columns,
    group_result,
    policy_groups,
    summarise,
)
from eval.texts.overlap import copying, distinct_ngrams, ngrams, repeated_ngrams, words
from tldr.measures.sentences import lead

MEASURES: dict[str, str] = {
    "tokens": "tokens, EOS included",
    "words": "words",
    "characters": "characters",
    "stop_rate": "share that ended with EOS",
    "kl_to_sft": "nats a sequence",
    "repeated_4grams": "share of 4-grams",
    "copying": "share of summary bigrams",
    "log_length_ratio": "ln(words / words of the reference)",
}
"""Measure -> unit; the keys are the columns `add_measures` makes."""


def add_measures(samples: pd.DataFrame, posts: pd.DataFrame | None = None) -> pd.DataFrame:
    """`samples` with the columns of `MEASURES`.

    ``kl_to_sft`` is the sample's logprob - logprob_sft: its mean over samples drawn at temperature
    1 estimates KL(policy || SFT) of whole sequences, as on the axis of the paper's Fig. 5. At other
    temperatures it is the same difference under another distribution, not a KL.

    Args:
        posts: as `eval.common.io.load_posts`; without them no copying and no length ratio.

    Raises:
        UsageError: samples of posts that are not in `posts`.
    """
    text = samples["text"].str.strip()
    counts = text.map(_count_words)
    made = samples.assign(
        words=counts,
        characters=text.str.len(),
        stop_rate=samples["stopped"].astype("Float64").astype(float),
        kl_to_sft=(samples["logprob"] - samples["logprob_sft"]).astype(float),
        repeated_4grams=text.map(repeated_ngrams),
    )
    if posts is None:
        return made
    joined = join_by_post(samples[["id"]], posts[["post", "summary"]], what="posts")
    made["copying"] = [copying(post, one) for post, one in zip(joined["post"], text, strict=True)]
    reference = joined["summary"].map(_count_words, na_action="ignore").astype(float)
    # An empty sample has no logarithm: it counts as half a word, so that it stays in the mean.
    made["log_length_ratio"] = np.log(counts.clip(lower=0.5) / reference)
    return made


def _count_words(text: str) -> int:
    return len(text.split())


def length_results(
    measured: pd.DataFrame, *, by: Sequence[str] = GROUP, draws: int = 2000
) -> list[MeasuredResult]:
    """Means of all `MEASURES` that the samples carry, for every policy (`summarise`)."""
    measures = [Measure(name, name, unit, counted=name == "stop_rate") for name, unit in MEASURES.items()]
    return summarise(measured, measures, by=by, draws=draws)


def distinct_results(
    samples: pd.DataFrame, *, by: Sequence[str] = GROUP, sizes: Sequence[int] = (1, 2)
) -> list[MeasuredResult]:
    """distinct-n of every policy's texts in each cell, within a single one with jackknife intervals.

    It falls with the size of the set: compare policies with equal `n` and ``cells`` only. Policies whose
    texts are shorter than n words have none.
    """
    results = []
    for names, group in policy_groups(samples, by):
        estimates = cellwise(group, partial(_distinct, sizes))
        for size in [size for size in sizes if size in estimates]:
            measure = Measure("text", f"distinct_{size}", f"share of {size}-grams, of the whole set")
            results.append(group_result(group, names, measure, estimates[size]))
    return results


def _distinct(sizes: Sequence[int], part: pd.DataFrame, _: int) -> dict[int, Estimate]:
    found = {size: distinct_estimate(part["text"], part["id"], size) for size in sizes}
    return {size: estimate for size, estimate in found.items() if estimate is not None}


def distinct_estimate(texts: pd.Series[str], posts: pd.Series[str], n: int) -> Estimate | None:
    """distinct-n of a set of texts as `eval.texts.overlap.distinct_ngrams`; None without a single n-gram."""
    codes, names = pd.factorize(posts)
    all_of = np.zeros(len(names))
    owner: dict[tuple[str, ...], int] = {}
    for post, text in zip(codes.tolist(), texts, strict=True):
        grams = ngrams(words(text), n)
        all_of[post] += len(grams)
        for gram in grams:
            if owner.setdefault(gram, post) != post:
                owner[gram] = -1  # in several posts: it remains when any one is left out
    if not owner:
        return None
    only_in = np.bincount([post for post in owner.values() if post >= 0], minlength=len(names))
    with np.errstate(invalid="ignore"):
        without = (len(owner) - only_in) / (all_of.sum() - all_of)
    return jackknife(len(owner) / float(all_of.sum()), without, len(texts))


def distinct_table(
    samples: pd.DataFrame, *, by: Sequence[str] = GROUP, n: Sequence[int] = (1, 2)
) -> pd.DataFrame:
    """distinct-n of every policy's texts, the mean of its cells.

    Returns:
        Columns `by`, ``samples``, ``cells``, ``distinct_<n>``, ``runs``.
    """
    rows = []
    for key, group in group_columns(samples).groupby(list(by), dropna=False):
        cells = cells_of(group).values()
        values = {
            f"distinct_{size}": float(np.mean([distinct_ngrams(list(part["text"]), size) for part in cells]))
            for size in n
        }
        about = {"samples": len(group), "cells": len(cells), **values}
        runs = " ".join(sorted(set(group["run"])))
        rows.append({**dict(zip(by, key, strict=True)), **about, "runs": runs})
    return pd.DataFrame(rows)


def baselines(posts: pd.DataFrame) -> pd.DataFrame:
    """The paper's extractive baselines and the reference as samples.

    They are ``lead-2`` and ``title`` (TL;DR), ``lead-3`` (news) and ``reference``.

    Returns:
        Rows like `eval.common.io.load_samples`' (id, policy, run, text, ``tag.method``, ...), with run
        ``posts``; title and reference only where the post has one.
    """
    texts = {
        "lead-2": posts["post"].map(lead),
        "lead-3": posts["post"].map(lambda post: lead(post, 3)),
        "title": posts["title"].str.strip(),
        "reference": posts["summary"],
    }
    tables = [
        pd.DataFrame(
            {"id": posts.index, "policy": name, "run": "posts", "text": text.to_numpy(), "tag.method": name}
        )
        for name, text in texts.items()
    ]
    table = pd.concat(tables, ignore_index=True).dropna(subset="text")
    # A baseline has no training seed: its cells are the worlds of the posts.
    worlds = table["id"].map(posts["world"]) if "world" in posts else pd.Series("", table.index)
    table["cell"] = worlds.replace("", "0")
    fixed = {"seed": 0, "temperature": np.nan, "top_p": np.nan, "n": 1, "tokens": np.nan, "stopped": None}
    return table.assign(**fixed, logprob=np.nan, logprob_sft=np.nan).reset_index(drop=True)
