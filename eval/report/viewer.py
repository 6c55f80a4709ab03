"""The sample viewer: every post with its summaries side by side, in one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.common.study import StudyResults
from eval.report.page import embedded_json, write_page
from eval.report.viewer_data import viewer_data

VIEWER_FILE = "samples.html"


def build_viewer(
    study: StudyResults, out: Path, *, title: str, note: str = "", judgements: Sequence[Path] = ()
) -> Path | None:
    """Write ``samples.html`` under `out`: posts, summaries, scores, verdicts and token values.

    Args:
        note: a warning shown at the top (a synthetic study's).
        judgements: files of `tldr.records.Judgement` rows, beside those below the study's folder.

    Returns:
        The page, or None where nothing was sampled.

    Raises:
        UsageError: a judgement file that is not there. RecordError: a broken line.
    """
    if study.samples is None:
        return None
    data, chunks = viewer_data(study, judgements)
    return write_page(
        out / VIEWER_FILE,
        "samples",
        ("tokens.js", "samples.js"),
        title=title,
        note=note,
        data=embedded_json(data),
        chunks=chunks,
        policies=len(data["policies"]),
        posts=len(data["posts"]["id"]),
        judged=bool(data["verdicts"]),
    )
