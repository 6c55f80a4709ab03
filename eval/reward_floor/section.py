"""The floor under a reward model on the pairs that it is judged on: length, and five surface features."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval.common.pairs import log_length_ratio
from eval.common.rows import FurtherResult, further_table, intervals, listed
from eval.common.runs import StudyRuns
from eval.common.stats import Estimate, bootstrap_means, cellwise
from eval.common.study import StudyResults, Table, once
from eval.common.tables import named
from eval.reward.measure import hits
from eval.reward.scored_pairs import LABELS_FILE, RewardModel, model_pairs
from eval.reward_floor.measure import FEATURES, cross_fitted, pair_features

JUDGES = {
    "reward model": "the reward model's score",
    "longer": "the longer summary, in words",
    "five features": f"logistic regression on {', '.join(FEATURES)}, fitted on the other folds",
    "features and model": "the same regression with the reward model's score as a sixth feature",
}


def folded_pairs(runs: StudyRuns) -> list[tuple[RewardModel, pd.DataFrame]]:
    """The reward models that were cross-validated, with all their held-out pairs."""
    return [(model, pairs) for model, pairs in model_pairs(runs, LABELS_FILE) if "fold" in pairs]


def judged_right(pairs: pd.DataFrame) -> pd.DataFrame:
    """Whether each of `JUDGES` is right about each decided pair: 1, 0, or 0.5 where it is undecided.

    Args:
        pairs: of one reward model, with ``fold``.
    """
    decided = hits(pairs)
    chosen = np.where(decided["preferred"] > 0.5, 1.0, 0.0)
    features = pair_features(decided).to_numpy(dtype=np.float64)
    # The reward models of the folds differ in scale.
    margin = decided.groupby("fold")["margin"].transform(lambda values: values / values.std())
    with_model = np.column_stack([features, margin])
    folds = decided["fold"].to_numpy(dtype=np.intp)
    leans = {
        "longer": log_length_ratio(decided).to_numpy(dtype=np.float64),
        "five features": cross_fitted(features, chosen, folds) - 0.5,
        "features and model": cross_fitted(with_model, chosen, folds) - 0.5,
    }
    right = {judge: (np.sign(lean) * (2 * chosen - 1) + 1) / 2 for judge, lean in leans.items()}
    return pd.DataFrame({"reward model": decided["hit"].astype(float), **right}, index=decided.index)


@once
def reward_floor_table(study: StudyResults) -> pd.DataFrame:
    """Accuracy of each of `JUDGES` on the pairs of all folds, and the reward model's lead over each.

    Returns:
        Result columns (measures ``accuracy`` and ``lead``) and ``judge``.
    """
    rows: list[FurtherResult] = []
    for model, pairs in folded_pairs(study.runs):
        names = {"method": "reward", "size": model.size, "params": model.params, "scorer": model.scorer}
        for (measure, judge), estimate in cellwise(pairs, _against_floor, study.draws).items():
            if measure == "accuracy" or judge != "reward model":
                unit = "share of labelled pairs"
                result = named(measure, unit, estimate, sorted(pairs["run"].unique()), **names)
                rows.append((result, {"judge": judge}))
    return further_table(rows, "judge")


def _against_floor(pairs: pd.DataFrame, draws: int) -> dict[tuple[str, str], Estimate]:
    """Accuracy of every judge, and the reward model's lead over it, by measure and judge."""
    right = judged_right(pairs)
    lead = right[["reward model"]].to_numpy() - right.to_numpy()
    columns = np.column_stack([right.to_numpy(), lead])
    measures = [(measure, judge) for measure in ("accuracy", "lead") for judge in map(str, right)]
    estimates = bootstrap_means(columns, pairs.loc[right.index, "id"], draws=draws)
    return dict(zip(measures, estimates, strict=True))


def floor_section_tables(study: StudyResults) -> list[Table]:
    """The table for the report; none without reward models that were cross-validated."""
    table = reward_floor_table(study)
    if table.empty:
        return []
    caption = (
        "Each pair is judged by the reward model that was trained without its post, and by judges that need "
        "no language model. `lead`: the reward model's accuracy minus that judge's on the same "
        f"pairs; {intervals(table)}. " + "; ".join(f"{name}: {what}" for name, what in JUDGES.items()) + "."
    )
    shown = listed(table, "scorer", "judge", "measure")
    return [Table("reward_floor", table, caption, shown)]
