"""What fools a reward model: pairs made by rule with a better side (paper, section 4.3, App. G.6)."""

from __future__ import annotations

import pandas as pd

from eval.common.paper import load_paper
from eval.common.rows import bars, intervals, row_estimate
from eval.common.study import Picture, Section, StudyResults, once, results_table, without
from eval.common.tables import named, result_table
from eval.probes.figure import probe_shares
from eval.reward.measure import accuracy
from eval.reward.scored_pairs import RewardModel, model_pairs, scored_pairs

PROBES_FILE = "probes.jsonl"
UNIT = "share of pairs preferred as they should be"
GOLD = "gold"
PAPER_LABELS = {
    "rm_1.3b": "Published: 1.3B reward model",
    "rm_6.7b": "Published: 6.7B reward model",
    "human": "Published: people",
}


@once
def probe_table(study: StudyResults) -> pd.DataFrame:
    """Share of each probe's pairs on which a scorer prefers the better side; equal scores count half.

    Returns:
        Result columns: ``measure`` is the probe's name, ``scorer`` a reward model, or ``gold``, the
        planted truth, where there is one: it says how far the rule itself is right.
    """
    models = model_pairs(study.runs, PROBES_FILE)
    planted = scored_pairs(study.runs, PROBES_FILE).get(GOLD)
    if planted is not None:
        models = [*models, (RewardModel(GOLD), planted)]
    results = []
    for model, pairs in models:
        shares = accuracy(pairs, by=["batch"])
        runs = {name for joined in pairs["run"].unique() for name in joined.split()}
        for _, row in shares[shares["breakdown"] == "batch"].iterrows():
            results.append(
                named(
                    str(row["group"]), UNIT, row_estimate(row), runs, method="reward", scorer=model.scorer,
                    size=model.size, params=model.params, variant=model.variant,
                )
            )  # fmt: skip
    order = list(dict.fromkeys(models[0][1]["batch"])) if models else []
    table = result_table(results)
    return table.sort_values("measure", key=lambda names: names.map(order.index), kind="stable")


def probes_section(study: StudyResults) -> Section:
    """Probes of the reward models: a table, and a figure of the main ones beside the paper's values."""
    section = Section(
        "probes",
        "What fools the reward models",
        "Pairs made by rule, with one side that should be preferred: the other side has its sentences "
        "shuffled, its roles swapped, the title repeated or a question added (paper, section 4.3).",
    )
    table = probe_table(study)
    if table.empty:
        return without(section)
    caption = f"Share of pairs on which the better side scores higher; {intervals(table)}."
    section.tables.append(results_table("probes", table, caption))
    main = table[(table["variant"] == "") & (table["scorer"] != GOLD)].drop_duplicates("scorer")
    labels = {
        scorer: f"Reward model {size}".strip()
        for scorer, size in zip(main["scorer"], main["size"], strict=True)
    }
    if GOLD in set(table["scorer"]):
        labels[GOLD] = "Planted truth"
    published = _published(study, set(table["measure"]))
    caption = (
        f"{bars(table).capitalize()}. Hollow: the paper's values for its own posts and models"
        + (", where it prints them in its text." if published else ": none for these probes.")
        + (" The planted truth shows how often the rule itself is right." if GOLD in labels else "")
    )
    section.pictures.append(Picture("probes", probe_shares(table, labels, published), caption))
    return section


def _published(study: StudyResults, probes: set[str]) -> dict[str, dict[str, float]]:
    """Probe -> the paper's values by label, of the probes at hand."""
    if not (study.paper / "probes.csv").is_file():
        return {}
    rows = load_paper("probes", "probe", study.paper)
    rows = rows[rows["x"].isin(probes) & rows["series"].isin(list(PAPER_LABELS))]
    found: dict[str, dict[str, float]] = {}
    for probe, series, value in zip(rows["x"], rows["series"], rows["value"], strict=True):
        found.setdefault(probe, {})[PAPER_LABELS[series]] = float(value)
    return found
