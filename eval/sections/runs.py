"""Where the numbers come from."""

from __future__ import annotations

import pandas as pd

from eval.sections.base import Section, Study, plain_table, without


def runs_section(study: Study) -> Section:
    """Every run of the study and whether it is finished: where the numbers come from."""
    section = Section("runs", "Runs", "Every number above names the runs it came from; these are they.")
    if not study.runs.runs:
        return without(section)
    rows = [
        {
            "run": run.run,
            "stage": run.stage,
            "size": run.size,
            "seed": "" if run.seed is None else run.seed,
            "variant": run.variant,
            "state": run.state,
            "made from": " ".join(run.parents.values()),
        }
        for run in study.runs.runs
    ]
    section.tables.append(plain_table("runs", pd.DataFrame(rows), "Runs of the study."))
    return section
