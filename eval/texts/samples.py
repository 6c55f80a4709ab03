"""A study's samples and the plain baselines, with the measures of their texts."""

from __future__ import annotations

import pandas as pd

from eval.common.study import StudyResults, once
from eval.texts.measure import add_measures, baselines


def has_references(study: StudyResults) -> bool:
    """Whether every reporting post is at hand with its reference."""
    return study.posts is not None and bool(study.posts["summary"].notna().all())


@once
def measured_samples(study: StudyResults) -> pd.DataFrame:
    """All samples, and the plain baselines where the posts are at hand, with `eval.texts.measure.MEASURES`.

    Empty where nothing was sampled; without copying and length ratio where references are missing.
    """
    samples, posts = study.samples, study.posts
    if samples is None:
        return pd.DataFrame()
    if posts is None or not has_references(study):
        return add_measures(samples)
    plain = baselines(posts.loc[samples["id"].unique()])
    return add_measures(pd.concat([samples, plain], ignore_index=True), posts)
