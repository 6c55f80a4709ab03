"""Loss on a held-out corpus: what fine-tuning and RL cost a policy, and what PPO-ptx saves."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from eval.common.rows import FurtherResult, further_table, intervals, listed, runs_by_name, settings_of
from eval.common.runs import StudyRun
from eval.common.stats import Estimate, bootstrap_means, cellwise
from eval.common.study import Section, StudyResults, Table, once, without
from eval.common.tables import named
from tldr.records import DocumentLoss, read_records

FILE = "corpus_loss.jsonl"
UNIT = "nats a token"
PTX = "ptx_coef"
METHODS = ("pretrained", "sft", "ppo")


@once
def losses(study: StudyResults) -> pd.DataFrame:
    """Every policy's loss on every document: ``cell``, ``id`` (of the document), ``method``, ``size``,
    ``variant``, ``params``, ``run``, ``nats``, ``tokens``, and ``ptx_coef`` of PPO (missing: of no PPO)."""
    by_name = runs_by_name(study.runs)
    rows = []
    for run in study.runs.finished("score"):
        method = _method(run)
        if method not in METHODS or not (run.folder / FILE).is_file():
            continue
        policy = by_name.get(run.parents.get("policy", ""))
        if method == "sft" and run.variant and policy is not None and not policy.variant:
            continue  # the main policy once more, scored by another reward model
        coefficient = settings_of(policy).get(PTX, 0.0) if policy is not None and method == "ppo" else None
        names = {"cell": run.cell, "method": method, "size": run.size, "params": run.params}
        names |= {"variant": run.variant, "run": run.run, PTX: coefficient}
        for place, loss in enumerate(read_records(run.folder / FILE, DocumentLoss)):
            rows.append(names | {"id": f"{run.world}/{place}", "nats": loss.nats, "tokens": loss.tokens})
    columns = ["cell", "id", "method", "size", "variant", "params", "run", PTX, "nats", "tokens"]
    return pd.DataFrame(rows, columns=columns)


def _method(run: StudyRun) -> str:
    tags = (run.json("run.json") or {}).get("tags") or {}
    return str(tags.get("method", ""))


def loss_a_token(part: pd.DataFrame, draws: int) -> dict[str, Estimate]:
    """Nats a token over all documents: a ratio of sums, its interval over documents by the delta method."""
    mean_tokens = float(part["tokens"].mean())
    value = float(part["nats"].sum() / part["tokens"].sum())
    # the mean of what a document adds to the ratio, around the ratio
    influence = value + (part["nats"] - value * part["tokens"]) / mean_tokens
    return {"loss": bootstrap_means(influence.to_frame("loss"), part["id"], draws=draws)[0]}


@once
def corpus_table(study: StudyResults) -> pd.DataFrame:
    """Loss on the held-out corpus of every policy, and its rise over SFT's of its size on the same documents.

    Measures ``corpus_loss`` and ``rise_over_sft``.

    Returns:
        Result columns and ``ptx_coef`` of PPO.
    """
    rows: list[FurtherResult] = []
    found = losses(study)
    keys = ["params", "size", "method", "variant"]
    order = found["method"].map(list(METHODS).index)
    found = found.assign(_order=order).sort_values(["params", "_order", "variant"], kind="stable")
    for (_, size, method, variant), part in found.groupby(keys, sort=False, dropna=False):
        names = {"size": size, "method": method, "variant": variant, "params": part["params"].iloc[0]}
        coefficient = {PTX: part[PTX].iloc[0]}
        estimate = cellwise(part, loss_a_token, study.draws)["loss"]
        rows.append((named("corpus_loss", UNIT, estimate, part["run"], **names), coefficient))
        sft = found[(found["method"] == "sft") & (found["variant"] == "") & (found["size"] == size)]
        if (method, variant) == ("sft", "") or sft.empty:
            continue
        both = part.merge(sft[["cell", "id", "nats", "run"]], on=["cell", "id"], suffixes=("", "_sft"))
        if len(both):
            both = both.assign(nats=both["nats"] - both["nats_sft"])
            estimate = cellwise(both, loss_a_token, study.draws)["loss"]
            runs = {*both["run"], *both["run_sft"]}
            rows.append((named("rise_over_sft", UNIT, estimate, runs, **names), coefficient))
    return further_table(rows, PTX)


def shares_of_the_rise(table: pd.DataFrame) -> Iterator[str]:
    """What a policy with PPO-ptx has of PPO's rise, a sentence each."""
    rises = table[(table["measure"] == "rise_over_sft") & (table["method"] == "ppo")]
    for size, part in rises.groupby("size", sort=False):
        plain = part[part[PTX].fillna(0) == 0]
        mixed = part[part[PTX].fillna(0) > 0]
        for _, row in mixed.iterrows() if len(plain) else ():
            against, rise = float(plain["value"].iloc[0]), float(row["value"])
            if against <= 0:
                continue
            with_it = (
                f"{rise / against:.2f} of that rise"
                if rise > 0
                else f"no rise, but {-rise:.3f} less than the supervised policy's loss"
            )
            plainly = f"size {size}: PPO raises the loss by {against:.3f}"
            yield f"{plainly}; with a coefficient of {row[PTX]:g} there is {with_it}"


def corpus_section(study: StudyResults) -> Section:
    """Loss on the held-out corpus of every policy."""
    table = corpus_table(study)
    told = f" Here: {'; '.join(found)}." if (found := list(shares_of_the_rise(table))) else ""
    section = Section(
        "corpus",
        "Loss on a held-out corpus",
        "How well each policy still predicts texts like those of pretraining, which nothing trained on: the "
        "price of fine-tuning and of RL (Ouyang et al. 2022, 4.2). PPO-ptx adds the pretraining objective to "
        "PPO's, so that the loss rises less." + told,
    )
    if table.empty:
        return without(section, "No score run found a held-out corpus (data.corpus_held_out).")
    caption = (
        "corpus_loss: cross-entropy of all tokens after the first. rise_over_sft: the same minus that of the "
        f"supervised policy on the same documents. Brackets: {intervals(table, 'documents')}."
    )
    shown = listed(table, "size", "method", "variant", PTX, "measure", "cells")
    section.tables.append(Table("corpus", table, caption, shown))
    return section
