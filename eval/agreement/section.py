"""Agreement of judges on two samples of one policy: the paper's section 4.4 and Tables 20-23."""

from __future__ import annotations

import pandas as pd

from eval.agreement.figure import LABELER, agreement_heatmap, agreement_with_labelers, judge_order
from eval.agreement.measure import comparison_agreement
from eval.common.pairs import REFERENCE, comparison_pairs, pair_key
from eval.common.released import FIG1, read_policy
from eval.common.rows import bars, intervals
from eval.common.study import Picture, Section, StudyResults, Table, once, policy_names, published, without
from eval.common.tables import METHOD_ORDER, PolicyNames
from tldr.errors import UsageError
from tldr.records import Comparison, read_records

COLUMNS = [
    "policy",
    "first",
    "second",
    "value",
    "low",
    "high",
    "se",
    "n",
    "posts",
    "left_out",
    "unit",
    "runs",
    "cells",
    "cell_sd",
    "cell_values",
]
UNIT = "share of pairs that both decided"
ALL = "all"
NO_LABELS = "No held-out label is of two samples of one policy whose name says what it is."
MOST = 4
"""Released policies of a method that are drawn: those with the most labels."""


def labelled_pairs(study: StudyResults, name: str) -> pd.DataFrame:
    """Labelled pairs from the file `name` of all ``pairs`` runs.

    Columns of `eval.common.pairs.comparison_pairs`, ``run`` and ``cell``, scores of small models first.
    Workers of different runs are different people. Empty where no run has such a file.
    """
    tables = []
    for run in study.runs.finished("pairs"):
        path = run.folder / name
        rows = read_records(path, Comparison) if path.is_file() else []
        if rows:
            pairs = comparison_pairs(rows)
            worker = run.run + " " + pairs["worker"]
            ids = run.post_ids(pairs["id"])
            tables.append(pairs.assign(run=run.run, cell=run.cell, id=ids, worker=worker))
    if not tables:
        return pd.DataFrame()
    whole = pd.concat(tables, ignore_index=True)
    return whole[sorted(whole.columns, key=lambda column: _params(study, str(column)))]


def _params(study: StudyResults, column: str) -> float:
    """Parameters of the model that gave a score, ``first_score.rm_<size>...``; 0 for other columns."""
    named = column.partition("_score.")[2].split("_")
    return study.sizes.get(named[1], 0.0) if len(named) > 1 else 0.0


def one_label_a_worker(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels without a worker's further ones of the same two texts.

    Two policies may have written the same two texts, so one worker may have labelled both pairs.
    """
    twice = pd.DataFrame({"pair": pair_key(labels), "worker": labels["worker"]}).duplicated()
    return labels[~twice]


@once
def same_policy_labels(study: StudyResults) -> pd.DataFrame:
    """Labels of two samples of one policy: those made for this, or those among the held-out labels.

    Of held-out labels only those of policies whose name says what they are: two summaries of an unknown
    policy need not be of one policy. A worker's further labels of the same texts are left out of these, since
    a released batch may repeat a pair.
    """
    made = labelled_pairs(study, "same_policy.jsonl")
    labels = labelled_pairs(study, "valid2.jsonl") if made.empty else made
    if labels.empty:
        return labels
    same = labels[(labels["first"] == labels["second"]) & (labels["first"] != REFERENCE)]
    if len(made):
        return same
    known = {policy: _names(study, policy)["method"] in METHOD_ORDER for policy in same["first"].unique()}
    return one_label_a_worker(same[same["first"].map(known).astype(bool)])


def _names(study: StudyResults, policy: str) -> PolicyNames:
    """`policy_names`; of a policy of OpenAI's release what its name says."""
    names = policy_names(study, policy)
    released = read_policy(policy) if names["method"] not in METHOD_ORDER else None
    if released is None or released.method not in (*FIG1, "best_of_n"):
        return names
    return names | {"method": released.method, "params": released.params}


@once
def agreement_table(study: StudyResults) -> pd.DataFrame:
    """Agreement of every two judges on two samples of one policy at one temperature (`COLUMNS`).

    A row per policy and two judges (as in `comparison_agreement`), and the same of
    all pairs together as policy `ALL`. Judges are compared in each cell by itself.
    """
    same = same_policy_labels(study)
    if same.empty:
        return pd.DataFrame(columns=COLUMNS)
    groups = [
        *sorted(same.groupby("first"), key=lambda group: _reading_order(study, str(group[0]))),
        (ALL, one_label_a_worker(same)),
    ]
    tables = []
    for policy, group in groups:
        if group.empty:
            continue
        try:
            table = comparison_agreement(group, study.posts, same_policy=True, draws=study.draws)
        except UsageError:  # of a policy with few pairs, no two judges may have decided one in common
            continue
        runs = " ".join(sorted(set(group["run"])))
        tables.append(table.assign(policy=policy, unit=UNIT, runs=runs))
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)


def _reading_order(study: StudyResults, policy: str) -> tuple[int, float, str]:
    """By method and size, as tables list policies; names of other forms first."""
    names = _names(study, policy)
    place = METHOD_ORDER.index(names["method"]) if names["method"] in METHOD_ORDER else -1
    return place, names["params"] or 0.0, policy


def agreement_section(study: StudyResults) -> Section:
    """How often labelers, reward models, ROUGE, length, copying and log-probabilities agree."""
    section = Section(
        "agreement",
        "Who agrees with the labelers",
        "How often each two judges prefer the same of two samples. Both samples come from one policy at one "
        "temperature, so that recognising a policy helps no judge. A pair is left out where either judge is "
        "undecided. An ensemble is the majority of at least three other labelers of the pair (paper, "
        "section 4.4, Tables 20-23).",
    )
    table = agreement_table(study)
    methods = _drawn(study, table)
    if not methods:
        some = len(study.runs.finished("pairs"))
        return without(section, *([NO_LABELS] if some else []))
    picture = agreement_with_labelers(table, methods, published(study.paper, "agreement", "metric_agreement"))
    caption = (
        f"Agreement with one labeler, by the policy that wrote both samples; {bars(table)}. "
        f"{_told(study, methods)}"
        "Stars: the paper's values for supervised and for human feedback samples (section 4.4). The arrow: "
        "the paper's upper bound for log-probabilities."
    )
    section.pictures.append(Picture("agreement_with_labelers", picture, caption))
    # One map for each method, of its largest size; the table has all sizes. Policies are sorted by size.
    for policy in {method: policy for policy, method in methods.items()}.values():
        picture = agreement_heatmap(table[table["policy"] == policy], title=f"Samples of {policy}")
        caption = (
            f"Two samples of {policy}: agreement of every two judges in per cent, below it the standard "
            "error, over cells or in one draw over posts. On the diagonal: two labelers of the same pair."
        )
        section.pictures.append(Picture(f"agreement_{policy}", picture, caption))
    caption = (
        f"Agreement with one labeler, by policy; {intervals(table)}. Every two judges, with standard "
        "errors and numbers of pairs, are in the CSV file."
    )
    section.tables.append(Table("agreement", table, caption, _shown(table)))
    return section


def _told(study: StudyResults, drawn: dict[str, str]) -> str:
    """Whose labels these are, where they were given."""
    if all(policy_names(study, policy)["method"] == method for policy, method in drawn.items()):
        return ""
    return (
        "The samples and labels are the released ones, not this study's. Of each method the policies with "
        "the most labels are drawn; the table has all. "
    )


def _drawn(study: StudyResults, table: pd.DataFrame) -> dict[str, str]:
    """The policies that are drawn, in reading order, with their methods; of released ones those with the most
    labels."""
    policies = [str(name) for name in dict.fromkeys(table["policy"]) if name != ALL]
    methods = {policy: _names(study, policy)["method"] for policy in policies}
    foreign = [policy for policy in policies if policy_names(study, policy)["method"] != methods[policy]]
    counts = table.groupby("policy")["n"].max()
    left_out = {
        policy
        for method in set(methods.values())
        for policy in sorted(
            (one for one in foreign if methods[one] == method), key=lambda one: -int(counts[one])
        )[MOST:]
    }
    return {policy: method for policy, method in methods.items() if policy not in left_out}


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """One row per judge, one column per policy: agreement with a labeler."""
    rows = table[table["first"] == LABELER]
    cells = rows.assign(
        text=[f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in rows.itertuples()]
    )
    wide = cells.pivot(index="second", columns="policy", values="text")
    wide = wide.loc[sorted(wide.index, key=judge_order), list(dict.fromkeys(table["policy"]))]
    return wide.fillna("").rename_axis("judge").reset_index()
