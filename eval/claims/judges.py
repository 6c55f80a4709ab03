"""Labelled pairs as evidence: whether each judge chose what the labeler chose, a row per label and judge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.agreement.measure import labeler_columns
from eval.claims.contrast import Missing
from eval.common.pairs import LENGTHS, pair_key
from eval.common.study import StudyResults, policy_names
from eval.reward.scored_pairs import reward_models, scored_pairs
from eval.rouge.measure import rouge
from eval.texts.overlap import copying

SEVERAL = 3
"""Other labelers whose majority is an ensemble (P App. C.2)."""


def valid_rows(study: StudyResults) -> pd.DataFrame:
    """Held-out labels: ``hit`` of every reward model, its training ``rankings`` and whether these are of an
    ``earlier_round``, and ``quarter`` of margin.

    Raises:
        Missing: no such pairs.
    """
    table = _scored(study, "valid2.jsonl")
    table = table[table["judge"] == "rm"].copy()
    # Quarters of the score gap within each reward model of a cell; 1 is the narrowest.
    model = [table["size"], table["variant"], table["cell"]]
    place = table["margin"].abs().groupby(model).rank(pct=True, method="first")
    return table.assign(quarter=np.ceil(place * 4).astype(int))


def probe_rows(study: StudyResults) -> pd.DataFrame:
    """Made-up pairs of known better side (P 3.11): ``probe`` names the kind.

    Raises:
        Missing: no such pairs.
    """
    table = _scored(study, "probes.jsonl")
    return table[table["judge"] == "rm"].assign(probe=lambda rows: rows["batch"])


def same_policy_rows(study: StudyResults) -> pd.DataFrame:
    """Labels of two samples of one policy at one temperature (P App. G.7), with every judge's ``hit``.

    Judges: ``rm`` and ``logprob`` of each size, ``rouge`` to the reference, ``tokens`` (longer is
    better), ``copying``, ``labeler`` (mean over the pair's other labelers) and ``ensemble`` (majority
    of at least three others; the judged labeler is not among them).

    Raises:
        Missing: no such pairs.
    """
    table = _scored(study, "same_policy.jsonl")
    labels = table.drop_duplicates("key").reset_index(drop=True)
    labels["run"] = labels["run"].str.split().str[0]  # people and texts do not depend on a reward model
    whole = pd.concat([table, *_people(labels), *_texts(labels, study)], ignore_index=True)
    names = {policy: policy_names(study, policy) for policy in whole["first"].unique()}
    return whole.assign(
        method=whole["first"].map(lambda policy: names[policy]["method"]),
        policy_params=whole["first"].map(lambda policy: names[policy]["params"]),
    )


def _scored(study: StudyResults, name: str) -> pd.DataFrame:
    """All scorers' rows of a file of the pairs runs."""
    models, parts = reward_models(study.runs), []
    params = {run.size: run.params for run in study.runs.finished("sft")}
    for scorer, pairs in scored_pairs(study.runs, name).items():
        judge, _, size = scorer.partition("_")
        model = models.get(scorer)
        about = {"judge": judge, "size": size, "params": params.get(size), "variant": "", "rankings": None}
        if model is not None:
            about |= {
                "size": model.size,
                "params": model.params,
                "variant": model.variant,
                "rankings": model.rankings,
                "earlier_round": model.earlier_round,
            }
        parts.append(_hits(pairs.assign(**about), pairs["first_score"] - pairs["second_score"]))
    if not parts:
        raise Missing(f"no labelled pairs ({name})")
    return pd.concat(parts, ignore_index=True)


def _hits(pairs: pd.DataFrame, margin: npt.ArrayLike) -> pd.DataFrame:
    """`pairs` with the margin of a judge and its hit; missing where the judge is indifferent."""
    sign = np.sign(np.asarray(margin, dtype=float))
    right = sign == np.sign(pairs["preferred"].to_numpy() - 0.5)
    hit = np.where((sign == 0) | np.isnan(sign), np.nan, right)
    return pairs.assign(key=pairs["pair"], margin=np.asarray(margin, dtype=float), hit=hit)


def _people(labels: pd.DataFrame) -> list[pd.DataFrame]:
    """Other labelers of the same pair, one by one and together.

    Runs and policies are apart: two of them may have written the same two texts.
    """
    parts = []
    for _, group in labels.groupby(["run", "first"]):
        turned = labeler_columns(group, ensemble_of=SEVERAL)
        others = turned.groupby(pair_key(turned))["labeler"]
        mean = (others.transform("sum") - turned["labeler"]) / (others.transform("size") - 1)
        for judge, sign in (("labeler", mean), ("ensemble", turned["labeler ensemble"])):
            agreed = (1 + turned["labeler"] * sign) / 2
            hit = agreed if judge == "labeler" else agreed.where(sign != 0)
            parts.append(
                group.assign(judge=judge, hit=hit, size="", variant="", params=np.nan, margin=np.nan)
            )
    return parts


def _texts(labels: pd.DataFrame, study: StudyResults) -> list[pd.DataFrame]:
    """Judges that read the texts: ROUGE to the reference, copying from the post, length where not scored."""
    posts = study.posts
    margins: dict[str, npt.NDArray[np.float64]] = {}
    if "tokens" not in set(labels["judge"]):
        margins["tokens"] = _difference(labels, lambda texts: [LENGTHS["words"](text) for text in texts])
    if posts is not None and labels["id"].isin(posts.index).all():
        near = posts.loc[labels["id"]]
        margins["copying"] = _difference(labels, lambda texts: list(map(copying, near["post"], texts)))
        if near["summary"].notna().all():
            references = list(near["summary"])
            margins["rouge"] = _difference(labels, lambda texts: rouge(references, texts)["rouge_mean"])
    nameless = labels.assign(size="", variant="", params=np.nan)
    return [_hits(nameless.assign(judge=judge), margin) for judge, margin in margins.items()]


def _difference(
    labels: pd.DataFrame, measure: Callable[[list[str]], npt.ArrayLike]
) -> npt.NDArray[np.float64]:
    """A measure of the first texts minus that of the second."""
    first, second = (np.asarray(measure(list(labels[f"{side}_text"])), float) for side in ("first", "second"))
    difference: npt.NDArray[np.float64] = first - second
    return difference
